-- Hands claimed commands to the member: their headers, rows of the answer and bodies.
local rows, bodies = {}, {}

local function add_row(id, lane, number, attempt, deaths, submitted_at, delayed, backed, deadline)
  local n = #rows
  rows[n + 1], rows[n + 2], rows[n + 3], rows[n + 4], rows[n + 5] = id, lane, number, attempt, deaths
  rows[n + 6], rows[n + 7], rows[n + 8] = (now - submitted_at) / 1000000, delayed / 1000000, backed / 1000000
  rows[n + 9] = deadline > 0 and (deadline - now) / 1000000 or false
end

local function hand_out(first_token)
  local n, ids = #taken, {}
  for i = 1, n do
    ids[i] = ssub(taken[i], 15)
  end
  local heads, changed = call('HMGET', k_heads, unpack(ids)), {}
  bodies = call('HMGET', k_bodies, unpack(ids))
  for i = 1, n do
    local raw = heads[i]
    local _, flags, code, _, _, attempt, deaths, _, level, delayed, backed, submitted_at, deadline =
      sunpack(CHANGING .. 'dd', raw)
    attempt = attempt + 1
    if flags ~= 0 then
      flags = start_flagged(lanes[code], to_command(ids[i], raw))
    end
    changed[2 * i - 1] = ids[i]
    changed[2 * i] = spack(CHANGING, RUNNING, flags, code, first_token + i, me, attempt, deaths, now, level, delayed,
      backed) .. ssub(raw, FIXED_AT)
    add_row(ids[i], code, first_token + i, attempt, deaths, submitted_at, delayed, backed, deadline)
  end
  call('ZREM', k_ready, unpack(taken))
  call('HSET', k_heads, unpack(changed))
  call('SADD', k_held, unpack(ids))
end
