-- Rate limits. A lane takes a token only when its turn has come; where there is none it waits at the limit, which lets
-- the most important of those that wait go on when the token is due.
-- Of a limit is kept: amount, seconds, burst (-1: a window); tokens there or, of a window, taken; when that was;
-- since when a bucket is not full.
Q.gates = false

--@cold
Q.GATE, Q.TINY = '<dddddd', 1e-9
Q.gates, Q.gates_of_lane = {}, {}

function Q.gate_of(field, amount, seconds, burst)
  local g = Q.gates[field]
  if g then
    return g
  end
  g = { field = field, id = spack('>H', #field) .. field }
  local raw = call('HGET', k_limits, field)
  if raw then
    g.amount, g.seconds, g.burst, g.tokens, g.at, g.full_at = sunpack(Q.GATE, raw)
  end
  if amount and (not raw or g.amount ~= amount or g.seconds ~= seconds or g.burst ~= burst) then
    g.amount, g.seconds, g.burst, g.at, g.full_at = amount, seconds, burst, now, now
    g.tokens = burst < 0 and (raw and g.burst < 0 and g.tokens or 0) or burst
  end
  g.most = g.burst < 0 and g.amount or g.burst
  Q.gates[field] = g
  return g
end

-- Brings a limit up to now: a bucket refills, what a window took leaves it.
function Q.pass_time(g)
  if g.burst >= 0 then
    g.tokens = g.tokens + (now - g.at) * g.amount / g.seconds / 1000000
    if g.tokens >= g.burst then
      g.tokens, g.full_at = g.burst, now
    end
    g.at = now
    return
  end
  local from = '[' .. g.id
  local until_ = '[' .. g.id .. spack('>I7', math.max(now - g.seconds * 1000000, 0)) .. '\255'
  while true do
    local old = call('ZRANGE', k_windows, from, until_, 'BYLEX', 'LIMIT', 0, 500)
    if #old == 0 then
      if g.tokens ~= 0 and #call('ZRANGE', k_windows, from, '[' .. g.id .. '\255', 'BYLEX', 'LIMIT', 0, 1) == 0 then
        g.tokens = 0 -- also where what was left has expired with the key
      end
      return
    end
    for i = 1, #old do
      g.tokens = g.tokens - sunpack('<d', old[i], #g.id + 8)
    end
    call('ZREM', k_windows, unpack(old))
  end
end

-- Microseconds until a cost may be taken; zero for at once.
function Q.wait_for(g, cost)
  if g.passed ~= now then
    g.passed = now
    Q.pass_time(g)
  end
  cost = math.min(cost, g.most)
  if g.burst >= 0 then
    local missing = cost - g.tokens
    return missing <= Q.TINY and 0 or math.max(1, math.ceil(missing * g.seconds / g.amount * 1000000))
  end
  local over = g.tokens + cost - g.amount
  if over <= Q.TINY then
    return 0
  end
  local some = call('ZRANGE', k_windows, '[' .. g.id, '[' .. g.id .. '\255', 'BYLEX', 'LIMIT', 0, 100)
  local at = now
  for i = 1, #some do
    at = sunpack('>I7', some[i], #g.id + 1)
    over = over - sunpack('<d', some[i], #g.id + 8)
    if over <= Q.TINY then
      break
    end
  end
  return math.max(1, at + g.seconds * 1000000 - now)
end

function Q.take_tokens(g, cost)
  g.dirty = true
  if g.burst >= 0 then
    g.tokens = g.tokens - cost
  else
    g.tokens = g.tokens + cost
    g.new = (g.new or 0) + cost
    -- What this run takes is one entry, written at once: the next question may be how long to wait.
    if g.entry then
      call('ZREM', k_windows, g.entry)
    end
    g.entry = g.id .. spack('>I7', now) .. spack('<d', g.new) .. spack('>I6', Q.token)
    call('ZADD', k_windows, '0', g.entry)
  end
end

-- The place of a lane among those that wait at a limit, with what its next command costs.
function Q.place_at(g, l, cost)
  return g.id .. spack('>I4I6I6I4', l.level + Q.LEVEL, l.served, l.asked, l.code) .. spack('<d', cost)
end

function Q.first_at(g)
  local first = call('ZRANGE', k_gates, '[' .. g.id, '[' .. g.id .. '\255', 'BYLEX', 'LIMIT', 0, 1)
  return first[1]
end

-- Sets the time at which the first of those that wait at a limit may go on.
function Q.time_gate(g)
  local first = Q.first_at(g)
  if first then
    local at = now + Q.wait_for(g, sunpack('<d', first, #g.id + 21))
    call('ZADD', k_gated, at, g.field)
    Q.due_at = math.min(Q.due_at, at)
  else
    call('ZREM', k_gated, g.field)
  end
end

function Q.hold_at(g, l, cost)
  local at = Q.place_at(g, l, cost)
  l.gated = 1
  call('ZADD', k_gates, '0', at)
  call('HSET', k_waiting, l.prefix, at)
  Q.time_gate(g)
end

-- Whether a more important lane saves up at a limit: what it waits for is not to be taken from it bit by bit.
function Q.is_behind(g, l)
  local first = Q.first_at(g)
  if not first then
    return false
  end
  local level, served = sunpack('>I4I6', first, #g.id + 1)
  level = level - Q.LEVEL
  if level > l.level or (level == l.level and served >= l.served) then
    return false
  end
  return Q.wait_for(g, sunpack('<d', first, #g.id + 21)) > 0
end

function Q.limits_of(l)
  local all = Q.gates_of_lane[l.code]
  if not all then
    all = {}
    for i, limit_ in ipairs(Q.policy_of(l).limits) do
      local field = limit_[1] == '' and 'l' .. l.code .. '.' .. i or limit_[1]
      all[i] = Q.gate_of(field, limit_[2], limit_[3], limit_[4])
    end
    Q.gates_of_lane[l.code] = all
  end
  return all
end

-- Takes the tokens of a lane's next command; or has the lane wait, and gives false.
function Q.admit(l, member)
  if band(l.flags, Q.LIMITED) == 0 then
    return true
  end
  local cost = Q.to_command('', call('HGET', k_heads, ssub(member, 15))).cost
  if cost == 0 then
    return true
  end
  local all, latest, longest = Q.limits_of(l), nil, 0
  for i = 1, #all do
    local wait = Q.wait_for(all[i], cost)
    if wait == 0 and Q.is_behind(all[i], l) then
      Q.hold_at(all[i], l, cost)
      return false
    end
    if wait > longest then
      latest, longest = all[i], wait
    end
  end
  if latest then
    Q.hold_at(latest, l, cost)
    return false
  end
  for i = 1, #all do
    Q.take_tokens(all[i], cost)
    Q.time_gate(all[i])
  end
  return true
end

-- Corrects what a command took, as if it had cost this from the start.
function Q.settle_cost(l, c, cost)
  if band(l.flags, Q.LIMITED) == 0 then
    return
  end
  local more = cost - c.cost
  for _, g in ipairs(Q.limits_of(l)) do
    Q.wait_for(g, 0)
    if g.burst >= 0 then
      if more > 0 or c.since >= g.full_at then
        g.tokens = math.min(g.tokens - more, g.burst)
        g.dirty = true
      end
    elseif c.since + g.seconds * 1000000 > now then
      local from = g.id .. spack('>I7', c.since)
      local entry = call('ZRANGE', k_windows, '[' .. from, '[' .. from .. '\255', 'BYLEX', 'LIMIT', 0, 1)[1]
      if entry then
        call('ZREM', k_windows, entry)
        call('ZADD', k_windows, '0', from .. spack('<d', sunpack('<d', entry, #g.id + 8) + more) .. ssub(entry, -6))
        g.tokens = g.tokens + more
        g.dirty = true
      end
    end
    Q.time_gate(g)
  end
end

function Q.save_limits()
  local longest = 0
  for field, g in pairs(Q.gates) do
    if g.dirty then
      call('HSET', k_limits, field, spack(Q.GATE, g.amount, g.seconds, g.burst, g.tokens, g.at, g.full_at))
    end
    if g.new then
      longest = math.max(longest, g.seconds)
    end
  end
  if longest > 0 then
    local kept = math.ceil(longest * 1000) + 60000
    call('PEXPIRE', k_windows, kept, 'NX')
    call('PEXPIRE', k_windows, kept, 'GT')
  end
end

-- Lets the first lane of each limit whose time has come go on; returns those lanes.
function Q.open_gates()
  local fields, free = call('ZRANGE', k_gated, '-inf', now, 'BYSCORE', 'LIMIT', 0, 50), {}
  for i = 1, #fields do
    local g = Q.gate_of(fields[i])
    local first = Q.first_at(g)
    if first then
      local code = sunpack('>I4', first, #g.id + 17)
      call('ZREM', k_gates, first)
      call('HDEL', k_waiting, spack('>I4', code))
      if call('HEXISTS', k_state, spack('>I4', code)) == 1 then
        local l = Q.lane_of(code)
        l.gated = 0
        free[#free + 1] = l
      end
    end
    Q.time_gate(g)
  end
  return free
end
