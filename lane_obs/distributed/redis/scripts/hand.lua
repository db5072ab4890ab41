-- Hands claimed commands to the member: their headers, rows of the answer and bodies.
Q.rows, Q.bodies = {}, {}

function Q.add_row(id, lane, number, attempt, deaths, submitted_at, delayed, backed, deadline)
  local n = #Q.rows
  Q.rows[n + 1], Q.rows[n + 2], Q.rows[n + 3], Q.rows[n + 4], Q.rows[n + 5] = id, lane, number, attempt, deaths
  Q.rows[n + 6], Q.rows[n + 7], Q.rows[n + 8] = (now - submitted_at) / 1000000, delayed / 1000000, backed / 1000000
  Q.rows[n + 9] = deadline > 0 and (deadline - now) / 1000000 or false
end

function Q.hand_out(first_token)
  local n, ids = #Q.taken, {}
  for i = 1, n do
    ids[i] = ssub(Q.taken[i], 15)
  end
  local heads, changed = call('HMGET', k_heads, unpack(ids)), {}
  Q.bodies = call('HMGET', k_bodies, unpack(ids))
  for i = 1, n do
    local raw = heads[i]
    local _, flags, code, _, _, attempt, deaths, _, level, delayed, backed, submitted_at, deadline =
      sunpack(Q.CHANGING .. 'dd', raw)
    attempt = attempt + 1
    if flags ~= 0 then
      flags = Q.start_flagged(Q.lanes[code], Q.to_command(ids[i], raw))
    end
    changed[2 * i - 1] = ids[i]
    changed[2 * i] = spack(Q.CHANGING, Q.RUNNING, flags, code, first_token + i, me, attempt, deaths, now, level, delayed,
      backed) .. ssub(raw, Q.FIXED_AT)
    Q.add_row(ids[i], code, first_token + i, attempt, deaths, submitted_at, delayed, backed, deadline)
  end
  call('ZREM', k_ready, unpack(Q.taken))
  call('HSET', k_heads, unpack(changed))
  call('SADD', k_held, unpack(ids))
end
