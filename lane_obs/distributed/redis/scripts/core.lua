-- What every script begins with: the time, who asks, the counters of the queue, and how a command's header is laid out.
-- ARGV: the member's code (8 bytes), the queue's epoch (8 bytes), what is asked in msgpack, then opaque bytes.
-- Answers 0 where the queue is not the one that the member joined, 1 where the member is not registered any more.
local call, spack, sunpack, ssub = redis.call, struct.pack, struct.unpack, string.sub
local mpack, munpack, band = cmsgpack.pack, cmsgpack.unpack, bit.band
local me = ARGV[1]
local time = call('TIME')
local now = time[1] * 1000000 + time[2]
-- epoch; last sequence number, token and turn asked for; running, slots held by lanes, their bound (-1: none);
-- submitted, returned, evicted, letters, most letters.
local META = '<c8ddddddddddd'
local numbers = call('HGET', k_meta, 'n')
if not numbers or (ARGV[2] ~= '' and ssub(numbers, 1, 8) ~= ARGV[2]) then
  return 0
end
local epoch, seq, token, asked, running, held, limit, submitted, returned, evicted, letters, most_letters =
  sunpack(META, numbers)
local request = munpack(ARGV[3])

-- States of a live command, and what is told of it in its header.
local READY, DELAYED, BACKOFF, RUNNING = 0, 1, 2, 3
local KEYED, PARTED, CANCEL, DATED, STARTED, RISING = 1, 2, 4, 8, 16, 32
local NOBODY, LEVEL = '\0\0\0\0\0\0\0\0', 2147483648
-- state, flags, lane, token, holder, attempt, deaths, since, level, delayed, backed off;
-- submitted, deadline, cost, origin, seq; part, key.
local CHANGING, FIXED = '<BBI4dc8I4I4dI4dd', 'dddc8dHc0Hc0'
local HEADER, FIXED_AT = CHANGING .. FIXED, 59

local function to_command(id, raw)
  local c = { id = id }
  local n
  c.state, c.flags, c.lane, c.token, c.holder, c.attempt, c.deaths, c.since, c.level, c.delayed, c.backed,
    c.submitted, c.deadline, c.cost, c.origin, c.seq, c.part, c.key = sunpack(HEADER, raw)
  return c
end

local function to_header(c)
  return spack(HEADER, c.state, c.flags, c.lane, c.token, c.holder, c.attempt, c.deaths, c.since, c.level, c.delayed,
    c.backed, c.submitted, c.deadline, c.cost, c.origin, c.seq, #c.part, c.part, #c.key, c.key)
end

local function has(c, flag)
  return band(c.flags, flag) ~= 0
end

local function save_numbers()
  call('HSET', k_meta, 'n', spack(META, epoch, seq, token, asked, running, held, limit, submitted, returned, evicted,
    letters, most_letters))
end
