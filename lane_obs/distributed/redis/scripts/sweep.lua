--@ core lane level ready final wake adopt
-- Takes commands from a member whose lease is lost; the key of what it holds is that member's.
-- request: member, ttl. Answers whether there is more, and facts.
local lost = request.member
if not call('ZSCORE', k_lost, lost) then
  return Q.answer_with({ false, Q.facts }, Q.fact_bodies)
end
local info = call('HGET', k_info, lost)
local name = info and munpack(info)[1] or lost
Q.adopt(lost)
local ids = call('HRANDFIELD', k_held, 100)
if #ids > 0 then
  call('HDEL', k_held, unpack(ids))
end
local heads = #ids > 0 and call('HMGET', k_heads, unpack(ids)) or {}

local function take_back(id, raw)
  local c = Q.to_command(id, raw)
  if c.state ~= Q.RUNNING or c.holder ~= lost then
    return
  end
  local l = Q.lane_of(c.lane)
  c.deaths = c.deaths + 1
  local policy = Q.policy_of(l)
  if not Q.has_ended(l, c, (policy.dies or c.deaths >= policy.deaths) and name) then
    Q.returned = Q.returned + 1
    Q.tell('returned', l, c, call('HGET', k_bodies, id), name)
    -- One that killed a process is not to kill the next at once.
    Q.put_back(l, c, math.min(50000 * 2 ^ (c.deaths - 1), 10000000))
  end
end

for i = 1, #ids do
  if heads[i] then
    take_back(ids[i], heads[i])
  end
end
local more = call('EXISTS', k_held) == 1
if not more then
  call('ZREM', k_lost, lost)
  call('HDEL', k_info, lost)
  call('HDEL', k_loads, lost)
end
Q.save_all()
return Q.answer_with({ more, Q.facts }, Q.fact_bodies)
