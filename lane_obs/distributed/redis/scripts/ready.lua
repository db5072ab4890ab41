-- Commands that wait: put in line, set for a time, and taken out again. What is new is written by `save_waiting`.
Q.new_ready, Q.new_due, Q.new_heads, Q.fresh = {}, {}, {}, 0
Q.earliest = false

function Q.save_waiting()
  if #Q.new_ready > 0 then
    call('ZADD', k_ready, unpack(Q.new_ready))
    Q.new_ready = {}
  end
  if #Q.new_due > 0 then
    call('ZADD', k_due, unpack(Q.new_due))
    Q.new_due = {}
  end
  if #Q.new_heads > 0 then
    call('HSET', k_heads, unpack(Q.new_heads))
    Q.new_heads = {}
  end
end

--@cold
function Q.place_in_line(l, c)
  return l.prefix .. spack('>I4I6', c.level, c.seq) .. c.id
end

function Q.part_field(l, c)
  return l.prefix .. spack('>H', #c.part) .. c.part
end

function Q.place_behind(l, c)
  return Q.part_field(l, c) .. spack('>I6', c.seq) .. c.id
end

-- A ready command that is behind another one of its part; its lane has those by age, too.
function Q.put_behind(l, c)
  call('ZADD', k_behind, '0', Q.place_behind(l, c))
  call('ZADD', k_behind_by_age, '0', Q.place_by_age(l, c))
  l.held = l.held + 1
end

function Q.take_from_behind(l, c)
  call('ZREM', k_behind, Q.place_behind(l, c))
  call('ZREM', k_behind_by_age, Q.place_by_age(l, c))
  l.held = l.held - 1
end

function Q.place_by_age(l, c)
  return l.prefix .. spack('>I7I6', c.since, c.seq) .. c.id
end

-- A part's head: whether it has started, its number, its level, its id.
function Q.hold_part(l, c, started)
  call('HSET', k_parts, Q.part_field(l, c), spack('>BI6I4', started, c.seq, c.level) .. c.id)
end

-- Whether a ready command of a part is lined up; else it is behind another one of its part.
function Q.enter_part(l, c)
  local head = call('HGET', k_parts, Q.part_field(l, c))
  if head then
    local started, number, level, at = sunpack('>BI6I4', head)
    local id = ssub(head, at)
    if id == c.id then
      return true
    end
    if started == 1 or number < c.seq then
      Q.put_behind(l, c)
      return false
    end
    local other = Q.to_command(id, call('HGET', k_heads, id))
    call('ZREM', k_ready, l.prefix .. spack('>I4I6', level, number) .. id)
    Q.put_behind(l, other)
  end
  Q.hold_part(l, c, Q.has(c, Q.STARTED) and 1 or 0)
  return true
end

-- Lets the next of a part go on, once its head has ended.
function Q.leave_part(l, c)
  local field = Q.part_field(l, c)
  local nexts = call('ZRANGE', k_behind, '[' .. field, '(' .. field .. '\255', 'BYLEX', 'LIMIT', 0, 1)
  local member = nexts[1]
  if not member then
    call('HDEL', k_parts, field)
    return
  end
  local id = ssub(member, #field + 7)
  local other = Q.to_command(id, call('HGET', k_heads, id))
  Q.take_from_behind(l, other)
  Q.hold_part(l, other, Q.has(other, Q.STARTED) and 1 or 0)
  call('ZADD', k_ready, '0', Q.place_in_line(l, other))
  Q.fresh = Q.fresh + 1
end

-- Has a lane that waits at a rate limit try anew. Those behind it need not wait for it: the next claim looks there.
function Q.leave_gate(l)
  local raw = call('HGET', k_waiting, l.prefix)
  l.gated = 0
  if raw then
    local at = ssub(raw, 3, 2 + sunpack('>H', raw))
    call('ZREM', k_gates, at)
    call('HDEL', k_waiting, l.prefix)
    call('ZADD', k_gated, 'XX', now, ssub(at, 3, 2 + sunpack('>H', at)))
    Q.note_due(now)
  end
end

-- The same where another command is its next by now. What is new must be written before.
function Q.recheck_gate(l)
  local raw = call('HGET', k_waiting, l.prefix)
  local head = call('ZRANGE', k_ready, '[' .. l.prefix, '(' .. spack('>I4', l.code + 1), 'BYLEX', 'LIMIT', 0, 1)[1]
  if not raw or ssub(raw, 3 + sunpack('>H', raw)) ~= head then
    Q.leave_gate(l)
  end
end

-- Makes a waiting, running or new command ready, at its place; its header is written with it.
function Q.put_ready(l, c)
  c.state, c.since, c.token, c.holder = Q.READY, now, 0, Q.NOBODY
  l.ready = l.ready + 1
  Q.fresh = Q.fresh + 1
  if band(l.flags, Q.BOOSTED) ~= 0 then
    Q.set_level(l, c)
  end
  if Q.has(c, Q.PARTED) then
    if Q.enter_part(l, c) then
      call('ZADD', k_ready, '0', Q.place_in_line(l, c))
    end
    call('HSET', k_heads, c.id, Q.to_header(c))
    return
  end
  Q.new_ready[#Q.new_ready + 1], Q.new_ready[#Q.new_ready + 2] = '0', Q.place_in_line(l, c)
  Q.new_heads[#Q.new_heads + 1], Q.new_heads[#Q.new_heads + 2] = c.id, Q.to_header(c)
end

-- Remembers the earliest time that this run has set.
function Q.note_due(at)
  if not Q.earliest or at < Q.earliest then
    Q.earliest = at
  end
  if at < Q.due_at then
    Q.due_at = at
  end
end

-- Has a command wait until a time.
function Q.put_due(l, c, state, at)
  c.state, c.since, c.token, c.holder = state, now, 0, Q.NOBODY
  if state == Q.DELAYED then
    l.delayed = l.delayed + 1
  else
    l.backoff = l.backoff + 1
  end
  Q.note_due(at)
  Q.new_due[#Q.new_due + 1], Q.new_due[#Q.new_due + 2] = at, c.id
  Q.new_heads[#Q.new_heads + 1], Q.new_heads[#Q.new_heads + 2] = c.id, Q.to_header(c)
end

-- A command that was given back is as it was: where it had never started before, its part is not held for a retry.
function Q.undo_start(l, c)
  if c.attempt == 0 and Q.has(c, Q.STARTED) then
    c.flags = c.flags - Q.STARTED
    Q.hold_part(l, c, 0)
  end
end

-- The wait of a command that was set aside is over; it is no back-off of its own. Meanwhile it kept its part.
function Q.end_aside(l, c)
  c.flags = c.flags - Q.ASIDE
  Q.undo_start(l, c)
end

-- Brings a command that ran back to where it waits, with its deadline.
function Q.put_back(l, c, delay)
  if Q.has(c, Q.DATED) then
    call('ZADD', k_deadlines, c.deadline, c.id)
    Q.note_due(c.deadline)
  end
  if delay then
    Q.put_due(l, c, Q.BACKOFF, now + delay)
  else
    Q.put_ready(l, c)
  end
end

-- Takes a waiting command out of where it waits.
function Q.take_out(l, c)
  if c.state == Q.DELAYED then
    l.delayed = l.delayed - 1
    c.delayed = c.delayed + now - c.since
    call('ZREM', k_due, c.id)
  elseif c.state == Q.BACKOFF then
    l.backoff = l.backoff - 1
    c.backed = c.backed + now - c.since
    call('ZREM', k_due, c.id)
  else
    l.ready = l.ready - 1
    Q.stop_rising(c)
    if call('ZREM', k_ready, Q.place_in_line(l, c)) == 0 and Q.has(c, Q.PARTED) then
      Q.take_from_behind(l, c)
    end
  end
end
