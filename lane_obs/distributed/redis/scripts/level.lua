-- Boosts: the levels of commands in their lanes, and of lanes, which is that of their next command.

function Q.relevel_all()
  for i = 1, #Q.touched do
    local l = Q.touched[i]
    local before = l.level
    l.level = l.priority
    if band(l.flags, Q.BOOSTED + Q.AGEING) ~= 0 then
      Q.relevel(l)
    end
    if l.level ~= before and l.place ~= 0 then -- the last among those of its new level
      Q.asked = Q.asked + 1
      l.asked = Q.asked
    end
    if l.gated ~= 0 and l.level ~= before then
      Q.leave_gate(l)
    elseif l.gated ~= 0 then
      Q.recheck_gate(l)
    end
  end
end

--@cold
Q.policies = {}

-- The policies of a lane that a run seldom needs.
function Q.policy_of(l)
  local p = Q.policies[l.code]
  if not p then
    p = munpack(call('HGET', k_lanes, l.prefix))
    Q.policies[l.code] = p
  end
  return p
end

-- The level of a command in a lane, and when it changes next (nil: never). A change counts a microsecond early.
function Q.level_at(l, submitted_at, deadline)
  local boost, age = Q.policy_of(l).boost, now - submitted_at + 1
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

-- Has the levels of all ready commands of a lane worked out anew, in the batches of what is due.
function Q.relevel_commands(l)
  local function rise_now(key, id_at)
    local from = '[' .. l.prefix
    while true do
      local some, due = call('ZRANGE', key, from, '(' .. spack('>I4', l.code + 1), 'BYLEX', 'LIMIT', 0, 1000), {}
      if #some == 0 then
        return
      end
      for i = 1, #some do
        due[2 * i - 1], due[2 * i] = 0, ssub(some[i], id_at(some[i]))
      end
      call('ZADD', k_boosts, unpack(due))
      from, Q.rise_at = '(' .. some[#some], 0
    end
  end

  rise_now(k_ready, function()
    return 15
  end)
  rise_now(k_behind, function(place)
    return 13 + sunpack('>H', place, 5)
  end)
end

-- Works out the level of a command that is ready from now on.
function Q.set_level(l, c)
  local level, rises_at = Q.level_at(l, c.submitted, c.deadline)
  c.level = Q.LEVEL - (l.priority - level)
  if rises_at then
    call('ZADD', k_boosts, rises_at, c.id)
    Q.rise_at = math.min(Q.rise_at, rises_at)
    if not Q.has(c, Q.RISING) then
      c.flags = c.flags + Q.RISING
    end
  elseif Q.has(c, Q.RISING) then
    call('ZREM', k_boosts, c.id)
    c.flags = c.flags - Q.RISING
  end
end

function Q.stop_rising(c)
  if Q.has(c, Q.RISING) then
    call('ZREM', k_boosts, c.id)
    c.flags = c.flags - Q.RISING
  end
end

-- The level of a lane whose next command is at this place in line.
function Q.level_by(l, place_of_head)
  if band(l.flags, Q.AGEING) == 0 then
    return l.priority - (Q.LEVEL - sunpack('>I4', place_of_head, 5))
  end
  local c = Q.to_command('', call('HGET', k_heads, ssub(place_of_head, 15)))
  local level, rises_at = Q.level_at(l, c.submitted, 0)
  if rises_at then
    call('ZADD', k_ageing, rises_at, l.prefix)
    Q.rise_at = math.min(Q.rise_at, rises_at)
  else
    call('ZREM', k_ageing, l.prefix)
  end
  return level
end

-- Works out the level of a lane anew. What is new must be written before.
function Q.relevel(l)
  l.level = l.priority
  if band(l.flags, Q.BOOSTED + Q.AGEING) ~= 0 then
    local first = call('ZRANGE', k_ready, '[' .. l.prefix, '(' .. spack('>I4', l.code + 1), 'BYLEX', 'LIMIT', 0, 1)
    if first[1] then
      l.level = Q.level_by(l, first[1])
    else
      call('ZREM', k_ageing, l.prefix)
    end
  end
end
