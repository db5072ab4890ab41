-- Gives a lane rate limits, which begin now where they are new. What it no longer limits by is forgotten, where no other
-- lane can.
function Q.set_limits(l, limits)
  local kept, raw = {}, call('HGET', k_lanes, l.prefix)
  for _, limit_ in ipairs(limits) do
    local field, amount, seconds, burst = Q.limit_field(l, limit_), limit_[2], limit_[3], limit_[4]
    kept[field] = true
    call('HSETNX', k_limits, field, spack(Q.GATE, amount, seconds, burst, 0, now, now))
  end
  for _, limit_ in ipairs(raw and munpack(raw).limits or {}) do
    local field = Q.limit_field(l, limit_)
    if not kept[field] and ssub(limit_[1], 1, 1) == '.' then
      local id = spack('>H', #field) .. field
      call('HDEL', k_limits, field)
      call('ZREM', k_gated, field)
      call('ZREMRANGEBYLEX', k_windows, '[' .. id, '[' .. id .. '\255')
    end
  end
end

-- Policies of lanes: name, priority, min, max, most pending, flags, the rest in msgpack.
function Q.declare(given)
  local name, priority, min, max, most, flags, rest = unpack(given)
  local code = call('HGET', k_names, name)
  if not code then
    code = call('HINCRBY', k_meta, 'lanes', 1)
    call('HSET', k_names, name, code)
    call('HSET', k_state, spack('>I4', code), spack(Q.LANE, 0, 0, 0, 0, 0, 0, 0, 0, priority, 0, 1, -1, 0, priority, 0, 0, 0))
  end
  if tonumber(code) < 0 then
    code = -code
    call('HSET', k_names, name, code)
  end
  local l = Q.lane_of(tonumber(code))
  Q.held = Q.held - math.max(l.running, l.min) + math.max(l.running, min)
  if l.gated ~= 0 then
    Q.leave_gate(l)
  end
  Q.set_limits(l, rest.limits)
  if priority ~= l.priority and band(flags, Q.BOOSTED) ~= 0 then
    Q.relevel_commands(l)
  end
  l.priority, l.min, l.max, l.most, l.flags = priority, min, max, most, flags
  call('HSET', k_lanes, l.prefix, mpack(rest))
  Q.policies[l.code] = nil
end
