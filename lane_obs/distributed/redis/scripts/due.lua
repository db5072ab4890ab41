-- What is due: delays and back-offs that are over, deadlines that have passed. In bounded batches.
Q.BATCH = 100

-- Does what is due; what only gates wait for is for a claim.
function Q.pass_due()
  Q.was_due, Q.was_rising = now >= Q.due_at, now >= Q.rise_at
  if Q.was_due then
    Q.promote()
    Q.expire()
  end
  if Q.was_rising then
    Q.rise()
  end
end

--@cold
function Q.promote()
  local ids = call('ZRANGE', k_due, '-inf', now, 'BYSCORE', 'LIMIT', 0, Q.BATCH)
  if #ids == 0 then
    return
  end
  call('ZREM', k_due, unpack(ids))
  local heads = call('HMGET', k_heads, unpack(ids))
  for i = 1, #ids do
    local c = Q.to_command(ids[i], heads[i])
    local l = Q.lane_of(c.lane)
    if c.state == Q.DELAYED then
      l.delayed = l.delayed - 1
      c.delayed = c.delayed + now - c.since
    else
      l.backoff = l.backoff - 1
      if Q.has(c, Q.ASIDE) then
        Q.end_aside(l, c)
      else
        c.backed = c.backed + now - c.since
      end
    end
    Q.put_ready(l, c)
  end
  Q.save_waiting()
end

function Q.expire()
  local ids = call('ZRANGE', k_deadlines, '-inf', now, 'BYSCORE', 'LIMIT', 0, Q.BATCH)
  for i = 1, #ids do
    local c = Q.to_command(ids[i], call('HGET', k_heads, ids[i]))
    local l = Q.lane_of(c.lane)
    Q.take_out(l, c)
    Q.end_it(l, c, 'expired', 'expired')
  end
end

function Q.rise_in_line(l, c)
  local is_lined_up = call('ZREM', k_ready, Q.place_in_line(l, c)) == 1
  Q.set_level(l, c)
  call('HSET', k_heads, c.id, Q.to_header(c))
  if is_lined_up then
    call('ZADD', k_ready, 0, Q.place_in_line(l, c))
    if Q.has(c, Q.PARTED) then
      Q.hold_part(l, c, Q.has(c, Q.STARTED) and 1 or 0)
    end
  end
end

-- Levels that rise, and those of lanes whose next command ages.
function Q.rise()
  local ids = call('ZRANGE', k_boosts, '-inf', now, 'BYSCORE', 'LIMIT', 0, Q.BATCH)
  if #ids > 0 then
    call('ZREM', k_boosts, unpack(ids))
  end
  for i = 1, #ids do
    local raw = call('HGET', k_heads, ids[i])
    local c = raw and Q.to_command(ids[i], raw)
    local l = c and Q.lane_of(c.lane)
    if c and c.state == Q.READY and band(l.flags, Q.BOOSTED) ~= 0 then -- else it has gone meanwhile
      Q.rise_in_line(l, c)
    end
  end
  local prefixes = call('ZRANGE', k_ageing, '-inf', now, 'BYSCORE', 'LIMIT', 0, Q.BATCH)
  for i = 1, #prefixes do
    if call('HEXISTS', k_state, prefixes[i]) == 1 then
      Q.lane_of(sunpack('>I4', prefixes[i]))
    else
      call('ZREM', k_ageing, prefixes[i])
    end
  end
end

local function first_score(...)
  local first = Q.NEVER
  for _, key in ipairs({ ... }) do
    local one = call('ZRANGE', key, 0, 0, 'WITHSCORES')
    if one[2] then
      first = math.min(first, tonumber(one[2]))
    end
  end
  return first
end

-- Finds out when something is due next, once what was due is done. It may turn out earlier than it is: what was due then
-- has gone another way.
function Q.look_ahead()
  if Q.was_due then
    Q.due_at = first_score(k_due, k_deadlines, k_gated)
  end
  if Q.was_rising then
    Q.rise_at = first_score(k_boosts, k_ageing)
  end
end
