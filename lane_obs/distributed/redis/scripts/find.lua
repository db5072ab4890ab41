--@ core lane level ready
-- A live command: lane, state, attempt, age, seconds until it is due, who runs it, how many go first; its body.
local raw = call('HGET', k_heads, request.id)
if not raw then
  return { mpack({}) }
end
local c = Q.to_command(request.id, raw)
local l = Q.lane_of(c.lane)
local due = call('ZSCORE', k_due, c.id)
local ahead, member = 0, ''
if c.state == Q.READY then
  ahead = call('ZLEXCOUNT', k_ready, '[' .. l.prefix, '(' .. Q.place_in_line(l, c))
elseif c.state == Q.RUNNING then
  local info = call('HGET', k_info, c.holder)
  member = info and munpack(info)[1] or c.holder
end
return { mpack({ c.lane, c.state, c.attempt, (now - c.submitted) / 1000000, due and (due - now) / 1000000 or false, member,
  ahead }), call('HGET', k_bodies, c.id) }
