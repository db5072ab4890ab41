-- Hands claimed commands to the member: their headers, rows of the answer and bodies.
Q.rows, Q.bodies = {}, {}
local CLAIMED = Q.CHANGING .. 'dd'

function Q.hand_out(first_token)
  local taken, rows, n, ids = Q.taken, Q.rows, #Q.taken, {}
  for i = 1, n do
    ids[i] = ssub(taken[i], 15)
  end
  local heads, changed = call('HMGET', k_heads, unpack(ids)), {}
  Q.bodies = call('HMGET', k_bodies, unpack(ids))
  local at, format, running, fixed_at = 0, Q.CHANGING, Q.RUNNING, Q.FIXED_AT
  for i = 1, n do
    local raw, id, number = heads[i], ids[i], first_token + i
    local _, flags, code, _, _, attempt, deaths, _, level, delayed, backed, ran, submitted, deadline =
      sunpack(CLAIMED, raw)
    attempt = attempt + 1
    if flags ~= 0 then
      flags = Q.start_flagged(Q.lanes[code], Q.to_command(id, raw))
    end
    changed[2 * i - 1] = id
    changed[2 * i] = spack(format, running, flags, code, number, me, attempt, deaths, now, level, delayed, backed, ran)
      .. ssub(raw, fixed_at)
    rows[at + 1], rows[at + 2], rows[at + 3], rows[at + 4], rows[at + 5] = id, code, number, attempt, deaths
    rows[at + 6], rows[at + 7] = (now - submitted) / 1000000, delayed / 1000000
    rows[at + 8], rows[at + 9] = backed / 1000000, deadline > 0 and (deadline - now) / 1000000
    rows[at + 10] = ran / 1000000
    at = at + 10
  end
  Q.take_out_of_line()
  call('HSET', k_heads, unpack(changed))
  call('SADD', k_held, unpack(ids))
end

-- What was taken from a lane is one run from its head: one search takes it out, where it is long enough.
function Q.take_out_of_line()
  local few = {}
  for _, mine in pairs(Q.heads_of) do
    if mine.at > 2 then
      call('ZREMRANGEBYLEX', k_ready, '[' .. mine[1], '[' .. mine[mine.at])
    else
      for i = 1, mine.at do
        few[#few + 1] = mine[i]
      end
    end
  end
  if #few > 0 then
    call('ZREM', k_ready, unpack(few))
  end
end

--@cold
-- The same for one that was handed out before.
function Q.add_row(c)
  local rows, n = Q.rows, #Q.rows
  rows[n + 1], rows[n + 2], rows[n + 3], rows[n + 4], rows[n + 5] = c.id, c.lane, c.token, c.attempt, c.deaths
  rows[n + 6], rows[n + 7], rows[n + 8] = (now - c.submitted) / 1000000, c.delayed / 1000000, c.backed / 1000000
  rows[n + 9], rows[n + 10] = c.deadline > 0 and (c.deadline - now) / 1000000, c.ran / 1000000
end
