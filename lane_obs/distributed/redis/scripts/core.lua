-- What every script begins with: the time, who asks, the counters of the queue, and how a command's header is laid out.
-- ARGV: the member's code (8 bytes), the queue's epoch (8 bytes), what is asked in msgpack, then opaque bytes.
-- Answers 0 where the queue is not the one that the member joined, 1 where the member is not registered any more.
local call, spack, sunpack, ssub = redis.call, struct.pack, struct.unpack, string.sub
local mpack, munpack, band = cmsgpack.pack, cmsgpack.unpack, bit.band
local me = ARGV[1]
local time = call('TIME')
local now = time[1] * 1000000 + time[2]
-- epoch; last sequence number, token and turn asked for; running, slots held by lanes, their bound (-1: none);
-- submitted, returned, evicted, letters, most letters; nothing is due, no level rises, no result goes before; until
-- when the results would be kept; what the one who keeps the time knows to be due, and who that is.
Q.META = '<c8ddddddddddddddddc8'
Q.NEVER = 9007199254740992
Q.numbers = call('HGET', k_meta, 'n')
if not Q.numbers or (ARGV[2] ~= '' and ssub(Q.numbers, 1, 8) ~= ARGV[2]) then
  return 0
end
Q.epoch, Q.seq, Q.token, Q.asked, Q.running, Q.held, Q.limit, Q.submitted, Q.returned, Q.evicted, Q.letters, Q.most_letters,
  Q.due_at, Q.rise_at, Q.results_at, Q.kept_until, Q.known, Q.keeper = sunpack(Q.META, Q.numbers)
local request = munpack(ARGV[3])

-- States of a live command, and what is told of it in its header.
Q.READY, Q.DELAYED, Q.BACKOFF, Q.RUNNING = 0, 1, 2, 3
Q.KEYED, Q.PARTED, Q.CANCEL, Q.DATED, Q.STARTED, Q.RISING, Q.ASIDE = 1, 2, 4, 8, 16, 32, 64
Q.NOBODY, Q.LEVEL = '\0\0\0\0\0\0\0\0', 2147483648
-- state, flags, lane, token, holder, attempt, deaths, since, level, delayed, backed off, ran;
-- submitted, deadline, cost, origin, seq; part, key.
Q.CHANGING, Q.FIXED = '<BBI4dc8I4I4dI4ddd', 'dddc8dHc0Hc0'
Q.HEADER, Q.FIXED_AT = Q.CHANGING .. Q.FIXED, 67
-- What is kept of what a member holds: token, lane, flags.
Q.HOLD = '<dI4B'

function Q.save_numbers()
  call('HSET', k_meta, 'n', spack(Q.META, Q.epoch, Q.seq, Q.token, Q.asked, Q.running, Q.held, Q.limit, Q.submitted, Q.returned, Q.evicted,
    Q.letters, Q.most_letters, Q.due_at, Q.rise_at, Q.results_at, Q.kept_until, Q.known, Q.keeper))
end

--@cold
function Q.to_command(id, raw)
  local c = { id = id }
  local n
  c.state, c.flags, c.lane, c.token, c.holder, c.attempt, c.deaths, c.since, c.level, c.delayed, c.backed,
    c.ran, c.submitted, c.deadline, c.cost, c.origin, c.seq, c.part, c.key = sunpack(Q.HEADER, raw)
  return c
end

function Q.to_header(c)
  return spack(Q.HEADER, c.state, c.flags, c.lane, c.token, c.holder, c.attempt, c.deaths, c.since, c.level, c.delayed,
    c.backed, c.ran, c.submitted, c.deadline, c.cost, c.origin, c.seq, #c.part, c.part, #c.key, c.key)
end

function Q.has(c, flag)
  return band(c.flags, flag) ~= 0
end
