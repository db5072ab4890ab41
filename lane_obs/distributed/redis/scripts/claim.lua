-- The claim: lanes by level, equals in turn; a lane below its reservation takes a slot of its own, others an open one.
-- What is in the two sets at first is read as far as it is needed; lanes of this run stand in two sorted lists.
Q.lists, Q.firsts = { {}, {} }, { 1, 1 }
Q.read, Q.read_at, Q.read_from = { {}, {} }, { 1, 1 }, { 0, 0 }
Q.is_whole = { false, false }
Q.taken, Q.heads_of = {}, {}

function Q.goes_before(level, served, lined_up, l)
  if level ~= l.level then
    return level < l.level
  end
  if served ~= l.served then
    return served < l.served
  end
  return lined_up < l.asked
end

-- Puts a lane into its list; it mostly belongs at the end.
function Q.line_up(l)
  local at = Q.place(l)
  if at == 0 then
    return
  end
  local list = Q.lists[at]
  local i = #list
  while i >= Q.firsts[at] and Q.goes_before(l.level, l.served, l.asked, list[i]) do
    list[i + 1] = list[i]
    i = i - 1
  end
  list[i + 1] = l
end

-- The next lane of a set that has not been looked at: its level, when served and lined up, its code.
function Q.peek(at)
  while true do
    local some, i = Q.read[at], Q.read_at[at]
    if some[i] then
      local served, lined_up, code = sunpack('>I6I6I4', some[i])
      if not Q.lanes[code] then
        return tonumber(some[i + 1]), served, lined_up, code
      end
      Q.read_at[at] = i + 2
    elseif Q.is_whole[at] then
      return nil
    else
      local from = Q.read_from[at]
      local count = from == 0 and 2 or from * 3
      Q.read[at] = call('ZRANGE', Q.SETS[at], from, from + count - 1, 'WITHSCORES')
      Q.read_at[at], Q.read_from[at] = 1, from + count
      Q.is_whole[at] = #Q.read[at] < 2 * count
    end
  end
end

function Q.first_of(at)
  while true do
    local l = Q.lists[at][Q.firsts[at]]
    local level, served, lined_up, code = Q.peek(at)
    if not level or (l and not Q.goes_before(level, served, lined_up, l)) then
      return l
    end
    Q.line_up(Q.lane_of(code))
  end
end

function Q.next_lane()
  local own = (Q.limit < 0 or Q.running < Q.limit) and Q.first_of(Q.OWN) or nil
  local open = Q.limit >= 0 and Q.held < Q.limit and Q.first_of(Q.OPEN) or nil
  if own and open then
    return Q.goes_before(open.level, open.served, open.asked, own) and open or own
  end
  return own or open
end

-- Whether no other lane of the same level or a lower one would go in between.
function Q.is_alone(l)
  for at = 1, Q.limit < 0 and 1 or 2 do
    local other = Q.lists[at][Q.firsts[at]]
    if other == l then
      other = Q.lists[at][Q.firsts[at] + 1]
    end
    if other and other.level <= l.level then
      return false
    end
    local level = Q.peek(at)
    if level and level <= l.level then
      return false
    end
  end
  return true
end

-- The place in line of a lane's next command, after those taken in this run.
function Q.head_of(l, wanted)
  local mine = Q.heads_of[l.code]
  if not mine then
    local is_alone = Q.is_alone(l)
    mine = { at = 0, from = 0, size = is_alone and wanted or 2, is_alone = is_alone }
    Q.heads_of[l.code] = mine
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

-- Takes several commands of a lane at once, where no other lane comes in between and none of them is looked at alone.
function Q.take_run(l, mine, wanted)
  local count = math.min(wanted, mine.from - mine.at, l.ready - l.held, l.max - l.running)
  if l.place == Q.OPEN then
    count = math.min(count, Q.limit - Q.held)
  elseif Q.limit >= 0 then
    count = math.min(count, l.min - l.running, Q.limit - Q.running)
  end
  local taken, n = Q.taken, #Q.taken
  for i = 1, count do
    taken[n + i] = mine[mine.at + i]
  end
  mine.at = mine.at + count
  Q.token = Q.token + count
  l.served, l.ready = Q.token, l.ready - count
  Q.held = Q.held - math.max(l.running, l.min)
  Q.running, l.running = Q.running + count, l.running + count
  Q.held = Q.held + math.max(l.running, l.min)
end

-- Takes the next command of a lane, or several; false where it may not start now.
function Q.take_from(l, wanted)
  local member, mine = Q.head_of(l, wanted)
  if not member then
    l.ready = l.held
    return false
  elseif mine.is_alone and band(l.flags, Q.LIMITED + Q.BOOSTED + Q.AGEING) == 0 then
    Q.take_run(l, mine, wanted)
    return true
  elseif not Q.admit(l, member) then
    return false
  end
  Q.take(l, member, mine)
  if band(l.flags, Q.BOOSTED + Q.AGEING) ~= 0 then
    Q.level_after_take(l, wanted - 1)
  end
  return true
end

-- Lines those lanes up that limits have let go on; tells whether there were any.
function Q.line_up_freed()
  local freed = Q.gates and Q.freed or {}
  if #freed == 0 then
    return false
  end
  Q.freed = {}
  for i = 1, #freed do
    Q.line_up(freed[i])
  end
  for _, mine in pairs(Q.heads_of) do
    mine.is_alone = false
  end
  return true
end

-- The next lane, once the gates that may are open; nil for none.
function Q.next_lane_or_gate()
  local l = Q.next_lane()
  while not l and now >= Q.due_at do
    Q.open_gates()
    if not Q.line_up_freed() then
      return nil
    end
    l = Q.next_lane()
  end
  return l
end

-- Takes up to `want` commands.
function Q.claim(want)
  Q.relevel_all()
  if now >= Q.due_at then
    Q.open_gates()
  end
  if Q.gates then
    Q.freed = {} -- they are among those that were touched
  end
  for i = 1, #Q.touched do
    Q.line_up(Q.touched[i])
  end
  while #Q.taken < want do
    local l = Q.next_lane_or_gate()
    if not l then
      return
    end
    local at = l.place
    local has_started = Q.take_from(l, want - #Q.taken)
    Q.firsts[at] = Q.firsts[at] + 1
    if has_started then
      Q.asked = Q.asked + 1
      l.asked = Q.asked
      Q.line_up(l)
    end
    Q.line_up_freed()
  end
end

--@cold
-- Works out the level of a lane after a command of it was taken.
function Q.level_after_take(l, wanted)
  l.level = l.priority
  local member = l.ready > l.held and Q.head_of(l, wanted)
  if member then
    l.level = Q.level_by(l, member)
  end
end

function Q.take(l, member, mine)
  mine.at = mine.at + 1
  Q.taken[#Q.taken + 1] = member
  Q.token = Q.token + 1
  l.served, l.ready = Q.token, l.ready - 1
  Q.lane_started(l)
end
