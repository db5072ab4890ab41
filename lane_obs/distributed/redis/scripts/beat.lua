--@ core registered lane level ready final due wake
-- Renews a member's lease, and does for all what is due. request: lease, ttl, looks, leads (whether it may).
-- Answers whether it leads, what it runs that is to be cancelled, members whose commands are to be taken from them,
-- seconds until the next lease ends, facts, whether something was pushed to it that it has not taken up.
call('ZADD', k_members, now + request.lease * 1000, me)
local late = call('ZRANGE', k_members, '-inf', now, 'BYSCORE', 'LIMIT', 0, 10)
local orphaned = call('ZRANGE', k_lost, '-inf', now - 1000000, 'BYSCORE', 'LIMIT', 0, 10)
for i = 1, #late do
  local member = late[i]
  orphaned[#orphaned + 1] = member
  call('ZADD', k_lost, now, member)
  call('ZREM', k_members, member)
  call('ZREM', k_idle, member)
  call('HDEL', k_turns, member)
  call('HDEL', k_submits, member)
end
Q.pass_due()
if Q.was_due or Q.was_rising then
  Q.look_ahead()
end
Q.save_all()
if call('ZCARD', k_idle) > 0 then
  local own, open = call('ZCARD', k_own), call('ZCARD', k_open)
  local may = (own > 0 and (Q.limit < 0 or Q.running < Q.limit)) or (open > 0 and Q.held < Q.limit)
  if may or (not Q.is_timed() and Q.due_at < Q.NEVER) then
    Q.wake(1)
  end
end
local leader = call('HGET', k_meta, 'leader')
if request.leads and leader ~= me and not (leader and call('ZSCORE', k_members, leader)) then
  call('HSET', k_meta, 'leader', me)
  leader = me
end
local cancels, mine = call('HGETALL', k_cancels), {}
for i = 1, #cancels, 2 do
  if cancels[i + 1] == me then
    mine[#mine + 1] = cancels[i]
  end
end
local nexts = call('ZRANGE', k_members, 0, 1, 'WITHSCORES')
local ends_at = nexts[1] ~= me and nexts[2] or nexts[4]
return Q.answer_with({ leader == me, mine, orphaned, ends_at and (ends_at - now) / 1000000 or false, Q.facts,
  call('HEXISTS', k_pushed, me) == 1 }, Q.fact_bodies)
