-- Ends of commands: what is kept of them, and who is told.
Q.gone, Q.final_states, Q.final_data, Q.ended = {}, {}, {}, {}
Q.facts, Q.fact_bodies = {}, {}
Q.inbox = ssub(k_meta, 1, -5)

-- A message: the length of its msgpack part, that part, opaque bytes.
function Q.send(member, head, bytes)
  head = mpack(head)
  return call('PUBLISH', Q.inbox .. member, spack('>I4', #head) .. head .. bytes)
end

function Q.finish(id, state, data)
  local n = #Q.gone + 1
  Q.gone[n], Q.final_states[n], Q.final_data[n] = id, state, data
  Q.ended[state] = (Q.ended[state] or 0) + 1
end

function Q.tell_watchers()
  if call('EXISTS', k_watch) == 0 then
    return
  end
  local watchers, letters_of = call('HMGET', k_watch, unpack(Q.gone)), {}
  local seen = {}
  for i = 1, #Q.gone do
    local members = watchers[i]
    if members then
      seen[#seen + 1] = Q.gone[i]
      for at = 1, #members, 8 do
        local member = ssub(members, at, at + 7)
        local mine = letters_of[member]
        if not mine then
          mine = { {}, {}, {}, {} }
          letters_of[member] = mine
        end
        local n = #mine[1] + 1
        mine[1][n], mine[2][n], mine[3][n], mine[4][n] = Q.gone[i], Q.final_states[i], #Q.final_data[i], Q.final_data[i]
      end
    end
  end
  if #seen > 0 then
    call('HDEL', k_watch, unpack(seen))
    for member, mine in pairs(letters_of) do
      Q.send(member, { 'r', mine[1], mine[2], mine[3] }, table.concat(mine[4]))
    end
  end
end

function Q.keep_results(ttl)
  local results, begins = {}, {}
  local at = now + ttl * 1000
  local until_ = spack('<d', at)
  for i = 1, #Q.gone do
    local state = Q.final_states[i]
    local begin = begins[state]
    if not begin then
      begin = until_ .. spack('>B', #state) .. state
      begins[state] = begin
    end
    results[2 * i - 1] = Q.gone[i]
    results[2 * i] = begin .. Q.final_data[i]
  end
  call('HSET', k_results, unpack(results))
  call('ZADD', k_result_due, at, mpack(Q.gone))
  Q.results_at = math.min(Q.results_at, at)
  -- Should all members go, these still do not stay.
  if at > Q.kept_until - 60000000 then
    Q.kept_until = at + 120000000
    call('PEXPIRE', k_results, ttl + 120000)
    call('PEXPIRE', k_result_due, ttl + 120000)
  end
end

function Q.save_ends()
  if now >= Q.results_at then
    Q.forget_results()
  end
  if #Q.gone > 0 then
    call('HDEL', k_heads, unpack(Q.gone))
    call('HDEL', k_bodies, unpack(Q.gone))
    if call('EXISTS', k_cancels) == 1 then
      call('HDEL', k_cancels, unpack(Q.gone))
    end
    Q.tell_watchers()
    if request.ttl > 0 then
      Q.keep_results(request.ttl)
    end
    for state, count in pairs(Q.ended) do
      call('HINCRBY', k_meta, 'ended:' .. state, count)
    end
  end
end

--@cold
function Q.tell(kind, l, c, body, member)
  Q.facts[#Q.facts + 1] = { kind, l.code, c.id, c.attempt, (now - c.submitted) / 1000000, member or '' }
  Q.fact_bodies[#Q.fact_bodies + 1] = body
end

-- Frees what a command with flags holds beside its place.
function Q.let_go(l, c)
  if Q.has(c, Q.KEYED) then
    if call('HGET', k_keys, c.key) == c.id then
      call('HDEL', k_keys, c.key)
    end
  end
  if Q.has(c, Q.DATED) then
    call('ZREM', k_deadlines, c.id)
  end
  if Q.has(c, Q.PARTED) then
    local head = call('HGET', k_parts, Q.part_field(l, c))
    if head and ssub(head, 12) == c.id then
      Q.leave_part(l, c)
    end
  end
end

function Q.remove_letter(id, record)
  call('HDEL', k_letters, id)
  call('ZREM', k_letter_order, id)
  Q.letters = Q.letters - 1
  local size = sunpack('>I4', record)
  local head = munpack(ssub(record, 5, 4 + size))
  local l = Q.lane_of(head[1])
  l.dead = l.dead - 1
  return head, ssub(record, 9 + size, 8 + size + sunpack('>I4', record, 5 + size)), l
end

function Q.evict()
  local oldest = call('ZRANGE', k_letter_order, 0, math.min(Q.letters - Q.most_letters, 100) - 1)
  for i = 1, #oldest do
    local head, body, l = Q.remove_letter(oldest[i], call('HGET', k_letters, oldest[i]))
    Q.evicted = Q.evicted + 1
    Q.tell('evicted', l, { id = oldest[i], attempt = head[4], submitted = head[9] }, body)
  end
end

-- Makes a command a dead letter; returns its body.
function Q.bury(l, c, state, cause, letter)
  local body = call('HGET', k_bodies, c.id) or ''
  local old = call('HGET', k_letters, c.id)
  if old then
    Q.remove_letter(c.id, old)
  end
  local head = mpack({ c.lane, state, cause, c.attempt, now, c.cost, c.part, c.key, c.submitted })
  call('HSET', k_letters, c.id, spack('>I4', #head) .. head .. spack('>I4', #body) .. body .. letter)
  Q.seq = Q.seq + 1
  call('ZADD', k_letter_order, Q.seq, c.id)
  l.dead = l.dead + 1
  Q.letters = Q.letters + 1
  if Q.letters > Q.most_letters then
    Q.evict()
  end
  return body
end

-- The broker itself ends a command that waits no more: it is told, and a dead letter unless it was cancelled.
function Q.end_it(l, c, kind, state, member)
  Q.let_go(l, c)
  local body = kind == 'cancelled' and (call('HGET', k_bodies, c.id) or '') or Q.bury(l, c, state, kind, '')
  Q.tell(kind, l, c, body, member)
  Q.finish(c.id, state, '')
end

-- Ends a command that would go back, where it is to be cancelled, has killed once too often (the member that it killed),
-- or is past its deadline; tells whether it did.
function Q.is_over(l, c, killed)
  if Q.has(c, Q.CANCEL) then
    Q.end_it(l, c, 'cancelled', 'cancelled')
  elseif killed then
    Q.end_it(l, c, 'poisoned', 'failed', killed)
  elseif Q.has(c, Q.DATED) and c.deadline <= now then
    Q.end_it(l, c, 'expired', 'expired')
  else
    return false
  end
  return true
end

-- A command that ran does so no more: true where that is its end; else it goes back.
function Q.has_ended(l, c, killed)
  Q.lane_ended(l)
  c.ran = c.ran + now - c.since
  return Q.is_over(l, c, killed)
end

function Q.forget_results()
  local due = call('ZRANGE', k_result_due, '-inf', now, 'BYSCORE', 'LIMIT', 0, request.sweeps or 4)
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
  local first = call('ZRANGE', k_result_due, 0, 0, 'WITHSCORES')
  Q.results_at = tonumber(first[2] or Q.NEVER)
  if not first[2] then
    Q.kept_until = 0 -- with the keys went their expiry
  end
end
