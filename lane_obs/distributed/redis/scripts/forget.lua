--@ core lane level ready final wake declare
-- Forgets a lane that has no live command. One with dead letters is kept for their sake, with a negative code.
-- request: name. Answers whether it did.
local code = tonumber(call('HGET', k_names, request.name) or -1)
if code < 0 then
  return { mpack({ false }) }
end
local l = Q.lane_of(code)
if l.ready + l.delayed + l.backoff + l.running > 0 then
  return { mpack({ false }) }
end
Q.held = Q.held - l.min
l.min = 0
if l.gated ~= 0 then
  Q.leave_gate(l)
end
Q.set_limits(l, {})
Q.save_all()
if l.dead > 0 then
  call('HSET', k_names, request.name, -code)
else
  call('HDEL', k_names, request.name)
  call('HDEL', k_state, l.prefix)
  call('HDEL', k_lanes, l.prefix)
end
return { mpack({ true }) }
