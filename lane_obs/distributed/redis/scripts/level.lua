-- Boosts: the levels of commands in their lanes, and of lanes, which is that of their next command.
local policies = {}

-- The policies of a lane that a run seldom needs.
local function policy_of(l)
  local p = policies[l.code]
  if not p then
    p = munpack(call('HGET', k_lanes, l.prefix))
    policies[l.code] = p
  end
  return p
end

-- The level of a command in a lane, and when it changes next (nil: never). A change counts a microsecond early.
local function level_at(l, submitted_at, deadline)
  local boost, age = policy_of(l).boost, now - submitted_at + 1
  local less, nexts = 0, nil
  if boost.every then
    local times = math.max(0, math.floor(age / boost.every))
    less, nexts = times * boost.by, (times + 1) * boost.every
  else
    local whole = deadline > 0 and deadline - submitted_at or boost.deadline
    for i = 1, whole and #boost.steps or 0 do
      local due = whole * boost.steps[i][1]
      if age < due then
        nexts = due
        break
      end
      less = boost.steps[i][2]
    end
  end
  local lowest = math.min(boost.floor, l.priority)
  if l.priority - less <= lowest then
    return lowest, nil
  end
  return l.priority - less, nexts and submitted_at + nexts
end

-- Works out the level of a command that is ready from now on.
local function set_level(l, c)
  local level, rises_at = level_at(l, c.submitted, c.deadline)
  c.level = LEVEL - (l.priority - level)
  if rises_at then
    call('ZADD', k_boosts, rises_at, c.id)
    if not has(c, RISING) then
      c.flags = c.flags + RISING
    end
  elseif has(c, RISING) then
    call('ZREM', k_boosts, c.id)
    c.flags = c.flags - RISING
  end
end

local function stop_rising(c)
  if has(c, RISING) then
    call('ZREM', k_boosts, c.id)
    c.flags = c.flags - RISING
  end
end

-- The level of a lane whose next command is at this place in line.
local function level_by(l, place_of_head)
  if band(l.flags, AGEING) == 0 then
    return l.priority - (LEVEL - sunpack('>I4', place_of_head, 5))
  end
  local c = to_command('', call('HGET', k_heads, ssub(place_of_head, 15)))
  local level, rises_at = level_at(l, c.submitted, 0)
  if rises_at then
    call('ZADD', k_ageing, rises_at, l.prefix)
  else
    call('ZREM', k_ageing, l.prefix)
  end
  return level
end

-- Works out the level of a lane anew. What is new must be written before.
local function relevel(l)
  l.level = l.priority
  if band(l.flags, BOOSTED + AGEING) ~= 0 then
    local first = call('ZRANGE', k_ready, '[' .. l.prefix, '(' .. spack('>I4', l.code + 1), 'BYLEX', 'LIMIT', 0, 1)
    if first[1] then
      l.level = level_by(l, first[1])
    else
      call('ZREM', k_ageing, l.prefix)
    end
  end
end

local function relevel_all()
  for i = 1, #touched do
    relevel(touched[i])
  end
end
