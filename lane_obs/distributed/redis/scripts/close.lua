--@ core lane level ready final wake adopt
-- A member leaves: what it holds is ready again. request: ttl, pushed (as at a turn). Answers whether there is more to
-- give back.
local pushed, ids = Q.adopt(me), {}
local has_begun = not pushed or pushed.token == request.pushed
if has_begun then
  ids = call('HRANDFIELD', k_held, 500)
else -- it never came there: these first, and no attempt of theirs counts
  for i = 1, pushed.count do
    ids[i] = pushed.holds[2 * i - 1]
  end
end
if #ids > 0 then
  call('HDEL', k_held, unpack(ids))
end
local heads = #ids > 0 and call('HMGET', k_heads, unpack(ids)) or {}
for i = 1, #ids do
  local c = heads[i] and Q.to_command(ids[i], heads[i])
  if c and c.state == Q.RUNNING and c.holder == me then
    local l = Q.lane_of(c.lane)
    if not Q.has_ended(l, c) then
      if not has_begun then
        c.attempt = c.attempt - 1
        Q.undo_start(l, c)
      end
      Q.put_back(l, c)
    end
  end
end
call('ZREM', k_idle, me)
local more = call('EXISTS', k_held) == 1
if not more then
  call('ZREM', k_members, me)
  for _, key in ipairs({ k_info, k_turns, k_submits, k_loads }) do
    call('HDEL', key, me)
  end
  if call('HGET', k_meta, 'leader') == me then
    call('HDEL', k_meta, 'leader')
  end
  if Q.keeper == me then
    Q.keeper = Q.NOBODY
    Q.wake(1)
  end
end
Q.save_all()
return Q.answer_with({ more, Q.facts }, Q.fact_bodies)
