--@ core registered lane level ready oldest final wake give
--@late limit bucket start claim hand push
-- Takes commands in. request: call, ttl, ids, lanes (names), which (the lane of each); delays, deadlines, costs, keys, parts by index; again: ids to be
-- looked for among those that ended.
-- Answers the name of a lane that is not there, and keeps nothing; else what is not accepted by index, and facts with their bodies.
local last = call('HGET', k_submits, me)
if last and munpack(last).call == request.call then
  local kept = munpack(last)
  return Q.answer_with({ kept.special, kept.facts }, kept.bodies)
end

local special, templates, new_bodies, seen, plain = {}, {}, {}, {}, 0
local delays, deadlines, costs, keys, parts = request.delays, request.deadlines, request.costs, request.keys, request.parts
local TAIL = spack('<HH', 0, 0)

local function template_of(code)
  local l = Q.lane_of(code)
  return { l, spack(Q.CHANGING .. 'dddc8', Q.READY, 0, code, 0, Q.NOBODY, 0, 0, now, Q.LEVEL, 0, 0, 0, now, 0, 1, me),
    l.prefix .. spack('>I4', Q.LEVEL), l.most < 0 and band(l.flags, Q.BOOSTED + Q.AGEING) == 0 }
end

local function refuse(i, answer, id)
  local n = #special
  special[n + 1], special[n + 2], special[n + 3] = i, answer, id
end

local function is_known(i, id)
  local key = keys[i]
  if key then
    local other = call('HGET', k_keys, key)
    if other then
      refuse(i, 'known', other)
      return true
    end
    call('HSET', k_keys, key, id)
  end
  return false
end

-- A server without memory refuses the first write of a script or none: bodies are written before anything else is.
local function save_bodies()
  if #new_bodies > 0 then
    call('HSET', k_bodies, unpack(new_bodies))
    new_bodies = {}
  end
end

-- Which command of a lane gives way: its first, or, where it has an order of its own, the one that is ready for the longest.
local function first_to_go(l)
  if band(l.flags, Q.BOOSTED + Q.DIVIDED) ~= 0 then
    return Q.oldest(l.prefix, band(l.flags, Q.BOOSTED) ~= 0, l.held)
  end
  local first = call('ZRANGE', k_ready, '[' .. l.prefix, '(' .. spack('>I4', l.code + 1), 'BYLEX', 'LIMIT', 0, 1)[1]
  return first and Q.to_command(ssub(first, 15), call('HGET', k_heads, ssub(first, 15)))
end

-- Makes room in a full lane, or refuses; true where the command may come in.
local function has_room(i, l, id)
  if l.most < 0 or l.ready + l.delayed + l.backoff < l.most then
    return true
  end
  local policy = Q.policy_of(l)
  if policy.overflow == 'drop_oldest' then
    save_bodies()
    Q.save_waiting()
    while l.ready + l.delayed + l.backoff >= l.most do -- more than once where retries came back above the bound
      local c = first_to_go(l)
      if not c then
        refuse(i, 'full', id)
        return false
      end
      Q.take_out(l, c)
      Q.end_it(l, c, 'dropped', 'failed')
    end
    return true
  elseif policy.overflow == 'wait' then
    call('ZADD', k_room, '0', l.prefix .. me)
  end
  refuse(i, 'full', id)
  return false
end

local function take_in(i, l, id)
  local c = { id = id, lane = l.code, flags = 0, attempt = 0, deaths = 0, level = Q.LEVEL, delayed = 0, backed = 0,
    ran = 0, submitted = now, deadline = 0, cost = costs[i] or 1, origin = me, seq = Q.seq, part = parts[i] or '',
    key = keys[i] or '' }
  if keys[i] then
    c.flags = Q.KEYED
  end
  if parts[i] then
    c.flags = c.flags + Q.PARTED
  end
  if deadlines[i] then
    c.deadline = now + deadlines[i]
    if band(l.flags, Q.RUNS_LATE) == 0 then
      c.flags = c.flags + Q.DATED
      call('ZADD', k_deadlines, c.deadline, id)
      Q.note_due(c.deadline)
    end
  end
  if delays[i] then
    Q.put_due(l, c, Q.DELAYED, now + delays[i])
  else
    Q.put_ready(l, c)
  end
end

local function was_there(i, id, raw)
  if seen[id] then
    return true
  end
  if raw then
    if Q.to_command(id, raw).origin ~= me then
      local other = keys[i] and call('HGET', k_keys, keys[i])
      refuse(i, other and 'known' or 'duplicate', other or id)
    end
    return true
  end
  return request.again[i] and call('HEXISTS', k_results, id) == 1
end

-- Gives new work that may start to an idle member that hears, or wakes it; tells for how many commands there is somebody.
local function give_out()
  local member, missing
  repeat
    local one = call('ZPOPMAX', k_idle)
    member, missing = one[1], tonumber(one[2])
  until not member or call('PUBSUB', 'NUMSUB', Q.inbox .. member)[2] > 0
  if not member then
    return Q.fresh
  end
  local most, n, l = math.floor(missing), Q.fresh, templates[1][1]

  -- Whether nothing but these commands could be claimed: plain ones of one lane that had none and has slots for all.
  local function is_all()
    return n <= most and #templates == 1 and #request.ids == n and plain == n and l.ready == n and l.was == 0
      and l.running + n <= l.max and band(l.flags, Q.LIMITED) == 0 and call('ZCARD', k_own) == 0
      and (Q.limit < 0 or (l.running >= l.min and Q.held + n <= Q.limit and call('ZCARD', k_open) == 0))
  end

  -- What claim.lua and hand.lua would come to, without putting the commands in line first.
  local function start_all()
    local rows, holds, bodies, first_token = {}, {}, {}, Q.token
    local begin, rest = spack('<BBI4', Q.RUNNING, 0, l.code), member .. spack('<I4I4d', 1, 0, now)
    for i = 1, n do
      local id, number = Q.new_heads[2 * i - 1], first_token + i
      Q.new_heads[2 * i] = begin .. spack('<d', number) .. rest .. ssub(Q.new_heads[2 * i], 39)
      holds[2 * i - 1], holds[2 * i] = id, spack(Q.HOLD, number, l.code, 0)
      rows[3 * i - 2], rows[3 * i - 1], rows[3 * i], bodies[i] = id, l.code, 0, ARGV[3 + i]
      Q.lane_started(l)
    end
    Q.new_ready = {}
    Q.token, Q.asked = Q.token + n, Q.asked + 1
    l.ready, l.served, l.asked = 0, Q.token, Q.asked
    Q.give(member, first_token, holds, rows, {}, bodies)
    return n
  end

  local given = 0
  if missing > most and now < Q.due_at and now < Q.rise_at then -- what is due is for a turn
    if is_all() then
      given = start_all()
    else
      Q.late()
      given = Q.push(member, most)
    end
  end
  if given > 0 then
    return given
  end
  Q.send(member, { 'w' }, '')
  return most
end

local ids, which = request.ids, request.which
for i = 1, #request.lanes do
  local code = tonumber(call('HGET', k_names, request.lanes[i]) or -1)
  if code < 0 then
    return { mpack({ request.lanes[i], {} }) }
  end
  templates[i] = template_of(code)
end
local heads = call('HMGET', k_heads, unpack(ids))
for i = 1, #ids do
  local id = ids[i]
  if not was_there(i, id, heads[i]) then
    local t = templates[which[i]]
    local l = t[1]
    if not is_known(i, id) then
      if has_room(i, l, id) then
        seen[id] = true
        Q.seq = Q.seq + 1
        Q.submitted = Q.submitted + 1
        if t[4] and not (delays[i] or deadlines[i] or costs[i] or keys[i] or parts[i]) then
          l.ready = l.ready + 1
          Q.fresh, plain = Q.fresh + 1, plain + 1
          local n = #Q.new_ready
          Q.new_ready[n + 1], Q.new_ready[n + 2] = '0', t[3] .. spack('>I6', Q.seq) .. id
          n = #Q.new_heads
          Q.new_heads[n + 1], Q.new_heads[n + 2] = id, t[2] .. spack('<d', Q.seq) .. TAIL
        else
          take_in(i, l, id)
        end
        local n = #new_bodies
        new_bodies[n + 1], new_bodies[n + 2] = id, ARGV[3 + i]
      elseif keys[i] then
        call('HDEL', k_keys, keys[i])
      end
    end
  end
end
save_bodies()
local given = 0
if Q.fresh > 0 and #ids <= Q.MOST_GIVEN then
  for i = 1, #Q.touched do
    if Q.may_start(Q.place(Q.touched[i])) then
      given = give_out()
      break
    end
  end
end
Q.fresh = Q.fresh - given
Q.save_all()
call('HSET', k_submits, me, mpack({ call = request.call, special = special, facts = Q.facts, bodies = Q.fact_bodies }))
return Q.answer_with({ special, Q.facts }, Q.fact_bodies)
