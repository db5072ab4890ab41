-- Commands that wait: put in line, set for a time, and taken out again. What is new is written by `save_waiting`.
local new_ready, new_due, new_heads, fresh = {}, {}, {}, 0
local earliest

local function place_in_line(l, c)
  return l.prefix .. spack('>I4I6', c.level, c.seq) .. c.id
end

local function part_field(l, c)
  return l.prefix .. spack('>H', #c.part) .. c.part
end

local function place_behind(l, c)
  return part_field(l, c) .. spack('>I6', c.seq) .. c.id
end

-- A part's head: whether it has started, its number, its level, its id.
local function hold_part(l, c, started)
  call('HSET', k_parts, part_field(l, c), spack('>BI6I4', started, c.seq, c.level) .. c.id)
end

-- Whether a ready command of a part is lined up; else it is behind another one of its part.
local function enter_part(l, c)
  local head = call('HGET', k_parts, part_field(l, c))
  if head then
    local started, number, level, at = sunpack('>BI6I4', head)
    local id = ssub(head, at)
    if id == c.id then
      return true
    end
    l.held = l.held + 1
    if started == 1 or number < c.seq then
      call('ZADD', k_behind, 0, place_behind(l, c))
      return false
    end
    local other = { id = id, seq = number, level = level, part = c.part }
    call('ZREM', k_ready, place_in_line(l, other))
    call('ZADD', k_behind, 0, place_behind(l, other))
  end
  hold_part(l, c, has(c, STARTED) and 1 or 0)
  return true
end

-- Lets the next of a part go on, once its head has ended.
local function leave_part(l, c)
  local field = part_field(l, c)
  local nexts = call('ZRANGE', k_behind, '[' .. field, '(' .. field .. '\255', 'BYLEX', 'LIMIT', 0, 1)
  local member = nexts[1]
  if not member then
    call('HDEL', k_parts, field)
    return
  end
  local id = ssub(member, #field + 7)
  local other = to_command(id, call('HGET', k_heads, id))
  call('ZREM', k_behind, member)
  l.held = l.held - 1
  hold_part(l, other, has(other, STARTED) and 1 or 0)
  call('ZADD', k_ready, 0, place_in_line(l, other))
  fresh = fresh + 1
end

-- Makes a waiting, running or new command ready, at its place; its header is written with it.
local function put_ready(l, c)
  c.state, c.since, c.token, c.holder = READY, now, 0, NOBODY
  l.ready = l.ready + 1
  fresh = fresh + 1
  if band(l.flags, BOOSTED) ~= 0 then
    set_level(l, c)
  end
  if has(c, PARTED) then
    if enter_part(l, c) then
      call('ZADD', k_ready, 0, place_in_line(l, c))
    end
    call('HSET', k_heads, c.id, to_header(c))
    return
  end
  new_ready[#new_ready + 1], new_ready[#new_ready + 2] = 0, place_in_line(l, c)
  new_heads[#new_heads + 1], new_heads[#new_heads + 2] = c.id, to_header(c)
end

-- Remembers the earliest time that this run has set.
local function note_due(at)
  if not earliest or at < earliest then
    earliest = at
  end
end

-- Has a command wait until a time.
local function put_due(l, c, state, at)
  c.state, c.since, c.token, c.holder = state, now, 0, NOBODY
  if state == DELAYED then
    l.delayed = l.delayed + 1
  else
    l.backoff = l.backoff + 1
  end
  note_due(at)
  new_due[#new_due + 1], new_due[#new_due + 2] = at, c.id
  new_heads[#new_heads + 1], new_heads[#new_heads + 2] = c.id, to_header(c)
end

-- Brings a command that ran back to where it waits, with its deadline.
local function put_back(l, c, delay)
  if has(c, DATED) then
    call('ZADD', k_deadlines, c.deadline, c.id)
  end
  if delay then
    put_due(l, c, BACKOFF, now + delay)
  else
    put_ready(l, c)
  end
end

-- Takes a waiting command out of where it waits.
local function take_out(l, c)
  if c.state == DELAYED then
    l.delayed = l.delayed - 1
    c.delayed = c.delayed + now - c.since
    call('ZREM', k_due, c.id)
  elseif c.state == BACKOFF then
    l.backoff = l.backoff - 1
    c.backed = c.backed + now - c.since
    call('ZREM', k_due, c.id)
  else
    l.ready = l.ready - 1
    stop_rising(c)
    if call('ZREM', k_ready, place_in_line(l, c)) == 0 and has(c, PARTED) then
      call('ZREM', k_behind, place_behind(l, c))
      l.held = l.held - 1
    end
  end
end

local function save_waiting()
  if #new_ready > 0 then
    call('ZADD', k_ready, unpack(new_ready))
    new_ready = {}
  end
  if #new_due > 0 then
    call('ZADD', k_due, unpack(new_due))
    new_due = {}
  end
  if #new_heads > 0 then
    call('HSET', k_heads, unpack(new_heads))
    new_heads = {}
  end
end
