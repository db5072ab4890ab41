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
  l.priority, l.min, l.max, l.most, l.flags = priority, min, max, most, flags
  call('HSET', k_lanes, l.prefix, mpack(rest))
  Q.policies[l.code] = nil
end
