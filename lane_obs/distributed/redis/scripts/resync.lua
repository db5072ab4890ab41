--@ core registered lane level ready final wake adopt
-- A replica has taken over, perhaps without the last moment: what this member is said to run and does not is ready
-- again, since its end is lost. request: ids that it runs, pushed (as at a turn), ttl. Answers whether there
-- is more, and facts.
-- A push that has not come to it is for its next turn.
Q.adopt(me, request.pushed)
local MOST = 500
local runs = {}
for i = 1, #request.ids do
  runs[request.ids[i]] = true
end
local held, lost = call('HKEYS', k_held), {}
for i = 1, #held do
  if not runs[held[i]] and #lost <= MOST then
    lost[#lost + 1] = held[i]
  end
end
local more = #lost > MOST
if more then
  lost[#lost] = nil
end
if #lost > 0 then
  call('HDEL', k_held, unpack(lost))
  call('HINCRBY', k_loads, me, -#lost)
end
local info = call('HGET', k_info, me)
for i = 1, #lost do
  local raw = call('HGET', k_heads, lost[i])
  local c = raw and Q.to_command(lost[i], raw)
  if c and c.state == Q.RUNNING and c.holder == me then
    local l = Q.lane_of(c.lane)
    if not Q.has_ended(l, c) then
      Q.returned = Q.returned + 1
      Q.tell('returned', l, c, call('HGET', k_bodies, c.id), info and munpack(info)[1] or me)
      Q.put_back(l, c)
    end
  end
end
Q.save_all()
return Q.answer_with({ more, Q.facts }, Q.fact_bodies)
