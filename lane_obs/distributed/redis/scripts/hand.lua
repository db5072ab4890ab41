-- Hands claimed commands to a member. A row of the answer is id, lane and age; what is not as it nearly always is stands
-- among the odd: the row's number, token, attempt, deaths, seconds delayed, backed off and to the deadline, and ran.
Q.rows, Q.odd, Q.bodies = {}, {}, {}
local PLAIN, NONE = '\0\0', ('\0'):rep(24)
local NEW = ssub(NONE, 1, 8)

-- Writes down who runs what was taken; gives what the member holds from now on, ids and holds one after another.
function Q.hand_out(first_token, member)
  local taken, rows, n, ids, before = Q.taken, Q.rows, #Q.taken, {}, #Q.bodies
  for i = 1, n do
    ids[i] = ssub(taken[i], 15)
  end
  local heads, changed, holds, begins = call('HMGET', k_heads, unpack(ids)), {}, {}, {}
  local bodies = call('HMGET', k_bodies, unpack(ids))
  local first = member .. spack('<I4I4d', 1, 0, now)
  for i = 1, n do
    local raw, id, number, flags = heads[i], ids[i], first_token + i, 0
    local code, submitted = sunpack('>I4', taken[i]), sunpack('<d', raw, Q.FIXED_AT)
    -- Bytes of the header: state and flags; attempts and deaths; delayed, backed off, ran, submitted; deadline.
    if ssub(raw, 1, 2) == PLAIN and ssub(raw, 23, 30) == NEW and ssub(raw, 43, 66) == NONE and ssub(raw, 75, 82) == NEW then
      local begin = begins[code]
      if not begin then
        begin = spack('<BBI4', Q.RUNNING, 0, code)
        begins[code] = begin
      end
      changed[2 * i] = begin .. spack('<d', number) .. first .. ssub(raw, 39)
    else
      flags, changed[2 * i] = Q.start(before + i, id, raw, number, member)
    end
    changed[2 * i - 1], holds[2 * i - 1] = id, id
    holds[2 * i] = spack(Q.HOLD, number, code, flags)
    local at = 3 * (before + i)
    rows[at - 2], rows[at - 1], rows[at] = id, code, (now - submitted) / 1000000
    Q.bodies[before + i] = bodies[i]
  end
  Q.take_out_of_line()
  call('HSET', k_heads, unpack(changed))
  return holds
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
function Q.add_odd(i, c)
  local odd, n = Q.odd, #Q.odd
  odd[n + 1], odd[n + 2], odd[n + 3], odd[n + 4] = i, c.token, c.attempt, c.deaths
  odd[n + 5], odd[n + 6] = c.delayed / 1000000, c.backed / 1000000
  odd[n + 7], odd[n + 8] = c.deadline > 0 and (c.deadline - now) / 1000000, c.ran / 1000000
end

-- The start of a command that is not new, or has flags: its flags and its header from now on.
function Q.start(i, id, raw, number, member)
  local c = Q.to_command(id, raw)
  if c.flags ~= 0 then
    Q.start_flagged(Q.lanes[c.lane], c)
  end
  c.state, c.token, c.holder, c.attempt, c.since = Q.RUNNING, number, member, c.attempt + 1, now
  Q.add_odd(i, c)
  return c.flags, Q.to_header(c)
end

-- The same for one that was handed out before.
function Q.add_row(i, c)
  local rows, at = Q.rows, 3 * i
  rows[at - 2], rows[at - 1], rows[at] = c.id, c.lane, (now - c.submitted) / 1000000
  Q.add_odd(i, c)
end
