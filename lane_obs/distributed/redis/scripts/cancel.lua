--@ core lane level ready final wake
-- Cancels a command, or asks the member that runs it to. Answers cancelled, running or unknown; facts.
local raw = call('HGET', k_heads, request.id)
if not raw then
  return answer_with({ 'unknown', facts }, fact_bodies)
end
local c = to_command(request.id, raw)
if c.state == RUNNING then
  if not has(c, CANCEL) then
    c.flags = c.flags + CANCEL
    call('HSET', k_heads, c.id, to_header(c))
    call('HSET', k_cancels, c.id, c.holder)
  end
  send(c.holder, { 'c', { c.id } }, '')
  return answer_with({ 'running', facts }, fact_bodies)
end
local l = lane_of(c.lane)
take_out(l, c)
end_it(l, c, 'cancelled', 'cancelled')
save_all()
return answer_with({ 'cancelled', facts }, fact_bodies)
