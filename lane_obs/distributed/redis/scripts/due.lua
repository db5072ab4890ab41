-- What is due: delays and back-offs that are over, deadlines that have passed. In bounded batches.
local BATCH = 100

local function promote()
  local ids = call('ZRANGE', k_due, '-inf', now, 'BYSCORE', 'LIMIT', 0, BATCH)
  if #ids == 0 then
    return
  end
  call('ZREM', k_due, unpack(ids))
  local heads = call('HMGET', k_heads, unpack(ids))
  for i = 1, #ids do
    local c = to_command(ids[i], heads[i])
    local l = lane_of(c.lane)
    if c.state == DELAYED then
      l.delayed = l.delayed - 1
      c.delayed = c.delayed + now - c.since
    else
      l.backoff = l.backoff - 1
      c.backed = c.backed + now - c.since
    end
    put_ready(l, c)
  end
  save_waiting()
end

local function expire()
  local ids = call('ZRANGE', k_deadlines, '-inf', now, 'BYSCORE', 'LIMIT', 0, BATCH)
  for i = 1, #ids do
    local c = to_command(ids[i], call('HGET', k_heads, ids[i]))
    local l = lane_of(c.lane)
    take_out(l, c)
    end_it(l, c, 'expired', 'expired')
  end
end

-- Levels that rise, and those of lanes whose next command ages.
local function rise()
  local ids = call('ZRANGE', k_boosts, '-inf', now, 'BYSCORE', 'LIMIT', 0, BATCH)
  for i = 1, #ids do
    local c = to_command(ids[i], call('HGET', k_heads, ids[i]))
    local l = lane_of(c.lane)
    local is_lined_up = call('ZREM', k_ready, place_in_line(l, c)) == 1
    set_level(l, c)
    call('HSET', k_heads, c.id, to_header(c))
    if is_lined_up then
      call('ZADD', k_ready, 0, place_in_line(l, c))
      if has(c, PARTED) then
        hold_part(l, c, has(c, STARTED) and 1 or 0)
      end
    end
  end
  local prefixes = call('ZRANGE', k_ageing, '-inf', now, 'BYSCORE', 'LIMIT', 0, BATCH)
  for i = 1, #prefixes do
    if call('HEXISTS', k_state, prefixes[i]) == 1 then
      lane_of(sunpack('>I4', prefixes[i]))
    else
      call('ZREM', k_ageing, prefixes[i])
    end
  end
end

-- When something is due next; nil for never.
local function next_due()
  local first
  for _, key in ipairs({ k_due, k_deadlines, k_gated }) do
    local one = call('ZRANGE', key, 0, 0, 'WITHSCORES')
    if one[2] and (not first or tonumber(one[2]) < first) then
      first = tonumber(one[2])
    end
  end
  return first
end
