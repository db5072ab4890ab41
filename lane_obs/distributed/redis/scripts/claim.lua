-- The claim: lanes by level, equals in turn; a lane below its reservation takes a slot of its own, others an open one.
-- What is in the two sets at first is read as far as it is needed; lanes of this run stand in two sorted lists.
local lists, firsts = { {}, {} }, { 1, 1 }
local read, read_at, read_from = { {}, {} }, { 1, 1 }, { 0, 0 }
local is_whole = { false, false }
local taken, heads_of = {}, {}

local function goes_before(level, served, lined_up, l)
  if level ~= l.level then
    return level < l.level
  end
  if served ~= l.served then
    return served < l.served
  end
  return lined_up < l.asked
end

-- Puts a lane into its list; it mostly belongs at the end.
local function line_up(l)
  local at = place(l)
  if at == 0 then
    return
  end
  local list = lists[at]
  local i = #list
  while i >= firsts[at] and goes_before(l.level, l.served, l.asked, list[i]) do
    list[i + 1] = list[i]
    i = i - 1
  end
  list[i + 1] = l
end

-- The next lane of a set that has not been looked at: its level, when served and lined up, its code.
local function peek(at)
  while true do
    local some, i = read[at], read_at[at]
    if some[i] then
      local served, lined_up, code = sunpack('>I6I6I4', some[i])
      if not lanes[code] then
        return tonumber(some[i + 1]), served, lined_up, code
      end
      read_at[at] = i + 2
    elseif is_whole[at] then
      return nil
    else
      local from = read_from[at]
      local count = from == 0 and 2 or from * 3
      read[at] = call('ZRANGE', SETS[at], from, from + count - 1, 'WITHSCORES')
      read_at[at], read_from[at] = 1, from + count
      is_whole[at] = #read[at] < 2 * count
    end
  end
end

local function first_of(at)
  while true do
    local l = lists[at][firsts[at]]
    local level, served, lined_up, code = peek(at)
    if not level or (l and not goes_before(level, served, lined_up, l)) then
      return l
    end
    line_up(lane_of(code))
  end
end

local function next_lane()
  local own = (limit < 0 or running < limit) and first_of(OWN) or nil
  local open = limit >= 0 and held < limit and first_of(OPEN) or nil
  if own and open then
    return goes_before(open.level, open.served, open.asked, own) and open or own
  end
  return own or open
end

-- Whether no other lane of the same level or a lower one would go in between.
local function is_alone(l)
  for at = 1, limit < 0 and 1 or 2 do
    local other = lists[at][firsts[at]]
    if other == l then
      other = lists[at][firsts[at] + 1]
    end
    if other and other.level <= l.level then
      return false
    end
    local level = peek(at)
    if level and level <= l.level then
      return false
    end
  end
  return true
end

-- The place in line of a lane's next command, after those taken in this run.
local function head_of(l, wanted)
  local mine = heads_of[l.code]
  if not mine then
    mine = { at = 0, from = 0, size = is_alone(l) and wanted or 2 }
    heads_of[l.code] = mine
  end
  if not mine[mine.at + 1] then
    local size = math.max(1, math.min(mine.size, wanted, l.ready - l.held, l.max - l.running))
    local some = call('ZRANGE', k_ready, '[' .. l.prefix, '(' .. spack('>I4', l.code + 1), 'BYLEX', 'LIMIT',
      mine.from, size)
    for i = 1, #some do
      mine[mine.from + i] = some[i]
    end
    mine.from, mine.size = mine.from + #some, mine.size * 4
  end
  return mine[mine.at + 1], mine
end

-- Works out the level of a lane after a command of it was taken.
local function level_after_take(l, wanted)
  l.level = l.priority
  local member = l.ready > l.held and head_of(l, wanted)
  if member then
    l.level = level_by(l, member)
  end
end

local function take(l, member, mine)
  mine.at = mine.at + 1
  taken[#taken + 1] = member
  token = token + 1
  l.served, l.ready = token, l.ready - 1
  lane_started(l)
end

-- Takes up to `want` commands.
local function claim(want)
  open_gates()
  relevel_all()
  for i = 1, #touched do
    line_up(touched[i])
  end
  while #taken < want do
    local l = next_lane()
    while not l do
      local free = open_gates()
      if #free == 0 then
        return
      end
      for i = 1, #free do
        line_up(free[i])
      end
      l = next_lane()
    end
    local member, mine = head_of(l, want - #taken)
    firsts[l.place] = firsts[l.place] + 1
    if member and admit(l, member) then
      take(l, member, mine)
      if band(l.flags, BOOSTED + AGEING) ~= 0 then
        level_after_take(l, want - #taken)
      end
      asked = asked + 1
      l.asked = asked
      line_up(l)
    elseif not member then
      l.ready = l.held
    end
  end
end
