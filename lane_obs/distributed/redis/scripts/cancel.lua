--@ core lane level ready final wake
-- Cancels a command, or asks the member that runs it to. Answers cancelled, running or unknown; facts.
local raw = call('HGET', k_heads, request.id)
if not raw then
  return Q.answer_with({ 'unknown', Q.facts }, Q.fact_bodies)
end
local c = Q.to_command(request.id, raw)
if c.state == Q.RUNNING then
  if not Q.has(c, Q.CANCEL) then
    c.flags = c.flags + Q.CANCEL
    call('HSET', k_heads, c.id, Q.to_header(c))
    call('HSET', k_cancels, c.id, c.holder)
  end
  Q.send(c.holder, { 'c', { c.id } }, '')
  return Q.answer_with({ 'running', Q.facts }, Q.fact_bodies)
end
local l = Q.lane_of(c.lane)
Q.take_out(l, c)
Q.end_it(l, c, 'cancelled', 'cancelled')
Q.save_all()
return Q.answer_with({ 'cancelled', Q.facts }, Q.fact_bodies)
