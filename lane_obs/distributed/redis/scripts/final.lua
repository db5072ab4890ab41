-- Ends of commands: what is kept of them, and who is told.
local gone, final_states, final_data, ended = {}, {}, {}, {}
local facts, fact_bodies = {}, {}
local inbox = ssub(k_meta, 1, -5)

local function tell(kind, l, c, body, member)
  facts[#facts + 1] = { kind, l.code, c.id, c.attempt, (now - c.submitted) / 1000000, member or '' }
  fact_bodies[#fact_bodies + 1] = body
end

-- A message: the length of its msgpack part, that part, opaque bytes.
local function send(member, head, bytes)
  head = mpack(head)
  return call('PUBLISH', inbox .. member, spack('>I4', #head) .. head .. bytes)
end

local function finish(id, state, data)
  local n = #gone + 1
  gone[n], final_states[n], final_data[n] = id, state, data
  ended[state] = (ended[state] or 0) + 1
end

-- Frees what a command with flags holds beside its place.
local function let_go(l, c)
  if has(c, KEYED) then
    local field = c.key
    if call('HGET', k_keys, field) == c.id then
      call('HDEL', k_keys, field)
    end
  end
  if has(c, DATED) then
    call('ZREM', k_deadlines, c.id)
  end
  if has(c, CANCEL) then
    call('HDEL', k_cancels, c.id)
  end
  if has(c, PARTED) then
    local head = call('HGET', k_parts, part_field(l, c))
    if head and ssub(head, 12) == c.id then
      leave_part(l, c)
    end
  end
end

local function remove_letter(id, record)
  call('HDEL', k_letters, id)
  call('ZREM', k_letter_order, id)
  letters = letters - 1
  local size = sunpack('>I4', record)
  local head = munpack(ssub(record, 5, 4 + size))
  local l = lane_of(head[1])
  l.dead = l.dead - 1
  return head, ssub(record, 9 + size, 8 + size + sunpack('>I4', record, 5 + size)), l
end

local function evict()
  local oldest = call('ZRANGE', k_letter_order, 0, math.min(letters - most_letters, 100) - 1)
  for i = 1, #oldest do
    local head, body, l = remove_letter(oldest[i], call('HGET', k_letters, oldest[i]))
    evicted = evicted + 1
    tell('evicted', l, { id = oldest[i], attempt = head[4], submitted = head[9] }, body)
  end
end

-- Makes a command a dead letter; returns its body.
local function bury(l, c, state, cause, letter)
  local body = call('HGET', k_bodies, c.id) or ''
  local old = call('HGET', k_letters, c.id)
  if old then
    remove_letter(c.id, old)
  end
  local head = mpack({ c.lane, state, cause, c.attempt, now, c.cost, c.part, c.key, c.submitted })
  call('HSET', k_letters, c.id, spack('>I4', #head) .. head .. spack('>I4', #body) .. body .. letter)
  seq = seq + 1
  call('ZADD', k_letter_order, seq, c.id)
  l.dead = l.dead + 1
  letters = letters + 1
  if letters > most_letters then
    evict()
  end
  return body
end

-- The broker itself ends a command that waits no more: it is told, and a dead letter unless it was cancelled.
local function end_it(l, c, kind, state, member)
  let_go(l, c)
  local body = kind == 'cancelled' and (call('HGET', k_bodies, c.id) or '') or bury(l, c, state, kind, '')
  tell(kind, l, c, body, member)
  finish(c.id, state, '')
end

local function tell_watchers()
  local watchers, letters_of = call('HMGET', k_watch, unpack(gone)), {}
  local seen = {}
  for i = 1, #gone do
    local members = watchers[i]
    if members then
      seen[#seen + 1] = gone[i]
      for at = 1, #members, 8 do
        local member = ssub(members, at, at + 7)
        local mine = letters_of[member]
        if not mine then
          mine = { {}, {}, {}, {} }
          letters_of[member] = mine
        end
        local n = #mine[1] + 1
        mine[1][n], mine[2][n], mine[3][n], mine[4][n] = gone[i], final_states[i], #final_data[i], final_data[i]
      end
    end
  end
  if #seen > 0 then
    call('HDEL', k_watch, unpack(seen))
    for member, mine in pairs(letters_of) do
      send(member, { 'r', mine[1], mine[2], mine[3] }, table.concat(mine[4]))
    end
  end
end

local function keep_results(ttl)
  local results, until_ = {}, spack('<d', now + ttl * 1000)
  for i = 1, #gone do
    results[2 * i - 1] = gone[i]
    results[2 * i] = until_ .. spack('>B', #final_states[i]) .. final_states[i] .. final_data[i]
  end
  call('HSET', k_results, unpack(results))
  call('ZADD', k_result_due, now + ttl * 1000, mpack(gone))
  -- Should all members go, these still do not stay.
  for _, key in ipairs({ k_results, k_result_due }) do
    call('PEXPIRE', key, ttl + 60000, 'NX')
    call('PEXPIRE', key, ttl + 60000, 'GT')
  end
end

local function forget_results()
  local due = call('ZRANGE', k_result_due, '-inf', now, 'BYSCORE', 'LIMIT', 0, 4)
  for i = 1, #due do
    local ids, late = munpack(due[i]), {}
    local kept = call('HMGET', k_results, unpack(ids))
    for j = 1, #ids do
      if kept[j] and sunpack('<d', kept[j]) <= now then
        late[#late + 1] = ids[j]
      end
    end
    if #late > 0 then
      call('HDEL', k_results, unpack(late))
    end
    call('ZREM', k_result_due, due[i])
  end
end

local function save_ends()
  if #gone > 0 then
    call('HDEL', k_heads, unpack(gone))
    call('HDEL', k_bodies, unpack(gone))
    tell_watchers()
    if request.ttl > 0 then
      keep_results(request.ttl)
    end
    for state, count in pairs(ended) do
      call('HINCRBY', k_meta, 'ended:' .. state, count)
    end
  end
  forget_results()
end
