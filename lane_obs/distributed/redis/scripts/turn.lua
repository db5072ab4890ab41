--@ core registered lane level ready final due wake limit bucket start claim hand adopt
-- One exchange of a member: ends and progress come in, claimed commands and facts go out.
-- request: turn, want, ttl, ids, tokens, states, delays, costs, letters (by index, the byte string's number), progress; pushed:
-- the first token of the last push that has come to it (0: none did; -1: it takes none).
local is_again, stale, left_idle, over = false, {}, false, 0
local function keep_row(i, c)
  Q.add_row(i, c)
  Q.bodies[i] = call('HGET', k_bodies, c.id)
end

-- The same turn once more, since its answer was lost: its ends are in, and what it claimed is handed out again.
local function answer_again(record)
  local last = munpack(record)
  local ids, again = call('HKEYS', k_held), {}
  for i = 1, #ids do
    local c = Q.to_command(ids[i], call('HGET', k_heads, ids[i]))
    local is_missed = c.token >= last.missed and c.token < last.missed + last.missed_count
    if is_missed or (c.token > last.token and c.token <= last.token + last.count) then
      again[#again + 1] = c
    end
  end
  table.sort(again, function(one, other)
    return one.token < other.token
  end)
  for i = 1, #again do
    keep_row(i, again[i])
  end
  return last
end

-- What was pushed to this member and has not come there goes with the answer; gives how many these are.
local function answer_missed(pushed)
  for i = 1, pushed.count do
    local id = pushed.holds[2 * i - 1]
    keep_row(i, Q.to_command(id, call('HGET', k_heads, id)))
  end
  return pushed.count
end

local function end_flagged(l, c, state, delay)
  if state == 'backoff' or state == 'ready' then
    if Q.is_over(l, c) then
      return
    end
    if state == 'ready' then
      c.attempt = c.attempt - 1
    end
    if state == 'backoff' then
      Q.put_back(l, c, delay)
    elseif delay > 0 then
      c.flags = c.flags + Q.ASIDE
      Q.put_back(l, c, delay)
    else
      Q.undo_start(l, c)
      Q.put_back(l, c)
    end
  else
    Q.let_go(l, c)
  end
end

local function end_odd(i, l, c)
  local state, cost, letter = request.states[i], request.costs[i], request.letters[i]
  c.ran = c.ran + now - c.since
  if cost then
    Q.settle_cost(l, c, cost)
  end
  if letter then
    Q.bury(l, c, state, '', ARGV[letter])
  end
  end_flagged(l, c, state, request.delays[i] or 0)
  if state ~= 'backoff' and state ~= 'ready' then
    Q.finish(c.id, state, ARGV[3 + i])
  end
end

local function end_one(i, code, flags)
  local id, state, l = request.ids[i], request.states[i], Q.lane_of(code)
  Q.lane_ended(l)
  if flags == 0 and state ~= 'backoff' and state ~= 'ready' and not request.costs[i] and not request.letters[i] then
    Q.finish(id, state, ARGV[3 + i])
  else
    end_odd(i, l, Q.to_command(id, call('HGET', k_heads, id)))
  end
end

local function take_ends()
  local ids, tokens, mine = request.ids, request.tokens, {}
  local holds = call('HMGET', k_held, unpack(ids))
  for i = 1, #ids do
    local number, code, flags
    if holds[i] then
      number, code, flags = sunpack(Q.HOLD, holds[i])
    end
    if number == tokens[i] then
      holds[i] = false -- the same end twice is refused
      mine[#mine + 1] = ids[i]
      end_one(i, code, flags)
    else
      stale[#stale + 1] = ids[i]
    end
  end
  over = #mine
  if over > 0 then
    call('HDEL', k_held, unpack(mine))
  end
end

local function take_progress()
  for i = 1, #request.progress, 3 do
    local id, number, data = request.progress[i], request.progress[i + 1], ARGV[request.progress[i + 2]]
    local hold, members = call('HGET', k_held, id), call('HGET', k_watch, id)
    if hold and members and sunpack(Q.HOLD, hold) == number then
      for at = 1, #members, 8 do
        Q.send(ssub(members, at, at + 7), { 'p', { id }, {}, { #data } }, data)
      end
    end
  end
end

-- Others are to be told of work before this member: it is woken last, and another one keeps the time.
local function step_back()
  call('ZADD', k_idle, 'XX', 0, me)
  if Q.keeper == me then
    Q.keeper, left_idle = Q.NOBODY, true
  end
end

-- Becomes idle, or not so any more; when the next thing is due, where this member is the one to keep the time.
local function rest(missing)
  if request.want == 0 then
    if #request.ids == 0 and #request.progress == 0 then
      step_back()
    end
    return nil
  end
  if missing == 0 then
    left_idle = call('ZREM', k_idle, me) == 1 or Q.keeper == me
    if Q.keeper == me then
      Q.keeper = Q.NOBODY
    end
    return nil
  end
  call('ZADD', k_idle, request.pushed >= 0 and missing + 0.5 or missing, me)
  if Q.keeper ~= me and Q.is_timed() then
    return nil
  end
  Q.keeper, Q.known = me, Q.due_at
  return Q.due_at < Q.NEVER and Q.due_at or nil
end

local again = call('HGET', k_turns, me)
if again then
  is_again = munpack(again).turn == request.turn
end
if is_again then
  local last = answer_again(again)
  local told_bodies = last.fact_bodies
  local at = Q.keeper == me and Q.due_at < Q.NEVER and Q.due_at
  local answer = { mpack({ last.stale, Q.rows, Q.odd, 0, last.facts, at and (at - now) / 1000000 or false, last.missed_count }) }
  for i = 1, #Q.bodies do
    answer[#answer + 1] = Q.bodies[i]
  end
  for i = 1, #told_bodies do
    answer[#answer + 1] = told_bodies[i]
  end
  return answer
end

local pushed, missed = Q.adopt(me), 0
if #request.progress > 0 then
  take_progress()
end
if #request.ids > 0 then
  take_ends()
end
Q.save_waiting() -- what comes back may be due, or past its deadline
Q.pass_due()
if pushed and pushed.token ~= request.pushed then
  missed = answer_missed(pushed)
end
local first_token, want = Q.token, math.max(request.want - missed, 0)
if want > 0 then
  Q.claim(want)
  if #Q.taken > 0 then
    call('HSET', k_held, unpack(Q.hand_out(first_token, me)))
  end
end
Q.save_ends()
Q.relevel_all()
if Q.gates then
  Q.save_limits()
end
local may = Q.save_lanes() or (#Q.taken == want and Q.next_lane() ~= nil)
if Q.was_due or Q.was_rising then
  Q.look_ahead()
end
local due = rest(want - #Q.taken)
if may or (left_idle and Q.due_at < Q.NEVER) then
  Q.wake(1)
end
if not due and Q.due_at < Q.NEVER and (Q.keeper == Q.NOBODY or Q.due_at < Q.known) then
  Q.wake_keeper(Q.due_at)
end
Q.tell_room()
if #Q.taken ~= over then
  call('HINCRBY', k_loads, me, #Q.taken - over)
end
Q.save_numbers()
call('HSET', k_turns, me, mpack({ turn = request.turn, token = first_token, count = #Q.taken, stale = stale, facts = Q.facts,
  fact_bodies = Q.fact_bodies, missed = pushed and pushed.token or 0, missed_count = missed }))
local answer = { mpack({ stale, Q.rows, Q.odd, first_token - missed, Q.facts, due and (due - now) / 1000000 or false, missed }) }
for i = 1, #Q.bodies do
  answer[#answer + 1] = Q.bodies[i]
end
for i = 1, #Q.fact_bodies do
  answer[#answer + 1] = Q.fact_bodies[i]
end
return answer
