-- Rate limits. A lane takes a token only when its turn has come; where there is none it waits at the limit, which lets
-- the most important of those that wait go on when the token is due.
Q.gates = false

--@cold
Q.TINY, Q.DIPS_AT = 1e-9, 49
Q.gates, Q.gates_of_lane, Q.freed = {}, {}, {}

function Q.gate_of(field, amount, seconds, burst)
  local g = Q.gates[field]
  if g then
    return g
  end
  g = { field = field, id = spack('>H', #field) .. field, dips = {} }
  local raw = call('HGET', k_limits, field)
  if raw then
    g.amount, g.seconds, g.burst, g.tokens, g.at, g.full_at = sunpack(Q.GATE, raw)
    if #raw >= Q.DIPS_AT then
      g.dips = { sunpack('<' .. ('d'):rep((#raw + 1 - Q.DIPS_AT) / 8), raw, Q.DIPS_AT) }
      g.dips[#g.dips] = nil -- where it ended
    end
  end
  if amount and (not raw or g.amount ~= amount or g.seconds ~= seconds or g.burst ~= burst) then
    g.amount, g.seconds, g.burst, g.tokens, g.at, g.full_at, g.dips = amount, seconds, burst, 0, now, now, {}
    if raw then -- it has other values now
      call('ZREMRANGEBYLEX', k_windows, '[' .. g.id, '[' .. g.id .. '\255')
      g.dirty = true
    end
  end
  g.most, g.rate = g.burst < 0 and g.amount or g.burst, g.amount / g.seconds / 1000000
  Q.gates[field] = g
  return g
end

-- Brings a window up to now: what was taken leaves it.
function Q.pass_time(g)
  g.passed = now
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
    g.dirty = true -- also where nothing is taken now
  end
end

-- Microseconds until a cost may be taken; zero for at once.
function Q.wait_for(g, cost)
  cost = math.min(cost, g.most)
  if g.burst >= 0 then
    local wait = Q.bucket_due(g, cost) - now
    return wait < Q.SAME and 0 or math.ceil(wait - Q.SAME)
  end
  if g.passed ~= now then
    Q.pass_time(g)
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
    Q.take_from_bucket(g, cost)
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

function Q.hold_at(g, l, cost, member)
  local at = Q.place_at(g, l, cost)
  l.gated = 1
  call('ZADD', k_gates, '0', at)
  call('HSET', k_waiting, l.prefix, spack('>H', #at) .. at .. member)
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
      all[i] = Q.gate_of(Q.limit_field(l, limit_), limit_[2], limit_[3], limit_[4])
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
      latest = all[i]
      break
    end
    if wait > longest then
      latest, longest = all[i], wait
    end
  end
  if latest then
    Q.hold_at(latest, l, cost, member)
  end
  for i = 1, #all do
    if not latest then
      Q.take_tokens(all[i], cost)
    end
    Q.look_at(all[i]) -- what it leaves there is for the next
  end
  return not latest
end

-- Corrects the entry of the window that a command has begun with; one that was for nothing has none yet.
function Q.settle_window(g, more, c)
  Q.pass_time(g)
  local from, number, taken = g.id .. spack('>I7', c.since), spack('>I6', c.token), 0
  local entry = call('ZRANGE', k_windows, '[' .. from, '[' .. from .. '\255', 'BYLEX', 'LIMIT', 0, 1)[1]
  if entry then
    call('ZREM', k_windows, entry)
    taken, number = sunpack('<d', entry, #g.id + 8), ssub(entry, -6)
  end
  call('ZADD', k_windows, '0', from .. spack('<d', taken + more) .. number)
  g.tokens = g.tokens + more
  g.dirty, g.is_settled = true, true
end

-- Corrects what a command took, as if it had cost this from the start.
function Q.settle_cost(l, c, cost)
  if band(l.flags, Q.LIMITED) == 0 then
    return
  end
  local more = cost - c.cost
  for _, g in ipairs(Q.limits_of(l)) do
    if g.burst >= 0 then
      Q.settle_bucket(g, more, c.since)
      g.dirty = true
    elseif c.since >= g.full_at and c.since + g.seconds * 1000000 > now then
      Q.settle_window(g, more, c)
    end
    Q.look_at(g)
  end
end

function Q.save_limits()
  local longest = 0
  for field, g in pairs(Q.gates) do
    if g.dirty then
      call('HSET', k_limits, field, spack(Q.GATE .. ('d'):rep(#g.dips), g.amount, g.seconds, g.burst, g.tokens, g.at, g.full_at,
        unpack(g.dips)))
    end
    if g.new or g.is_settled then
      longest = math.max(longest, g.seconds)
    end
  end
  if longest > 0 then
    local kept = math.ceil(longest * 1000) + 60000
    call('PEXPIRE', k_windows, kept, 'NX')
    call('PEXPIRE', k_windows, kept, 'GT')
  end
end

-- Lets the first of those that wait at a limit go on while there is a token for it, until one may start: that one is freed.
function Q.look_at(g)
  local first = Q.first_at(g)
  while first and Q.wait_for(g, sunpack('<d', first, #g.id + 21)) == 0 do
    local code = sunpack('>I4', first, #g.id + 17)
    local l = Q.lane_of(code)
    call('ZREM', k_gates, first)
    call('HDEL', k_waiting, spack('>I4', code))
    if l then
      l.gated = 0
      if Q.place(l) ~= 0 then
        Q.freed[#Q.freed + 1] = l
        break
      end
    end
    first = Q.first_at(g)
  end
  Q.time_gate(g)
end

-- Looks at each limit whose time has come.
function Q.open_gates()
  local fields = call('ZRANGE', k_gated, '-inf', now, 'BYSCORE', 'LIMIT', 0, 50)
  for i = 1, #fields do
    Q.look_at(Q.gate_of(fields[i]))
  end
end
