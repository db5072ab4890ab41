-- Idle members, by how many commands they still take, and a half where they take them unasked.
function Q.wake(n)
  while n > 0 do
    local one = call('ZPOPMAX', k_idle)
    if #one == 0 then
      return
    end
    if Q.send(one[1], { 'w' }, '') > 0 then
      n = n - math.floor(one[2])
    end
  end
end

-- Whether there is an idle member that knows when something is due next; the others sleep.
function Q.is_timed()
  return Q.keeper ~= Q.NOBODY and call('ZSCORE', k_idle, Q.keeper)
end

-- Something is due earlier than the one who keeps the time knows.
function Q.wake_keeper(at)
  if not Q.is_timed() then
    Q.wake(1)
  elseif at < Q.known then
    call('ZREM', k_idle, Q.keeper)
    if Q.send(Q.keeper, { 'w' }, '') == 0 then
      Q.wake(1)
    end
  end
end

-- Tells those who wait for room in the bounded lanes of this run, as many as there is room for.
function Q.tell_room()
  for i = 1, #Q.touched do
    local l = Q.touched[i]
    local room = l.most < 0 and 0 or l.most - l.ready - l.delayed - l.backoff
    if room > 0 then
      local some = call('ZRANGE', k_room, '[' .. l.prefix, '(' .. spack('>I4', l.code + 1), 'BYLEX', 'LIMIT', 0,
        1000)
      for j = 1, #some do
        call('ZREM', k_room, some[j])
        Q.send(ssub(some[j], 5), { 'o', { tostring(l.code) } }, '')
      end
    end
  end
end

-- Writes what a run has changed, and wakes who can do something about it.
function Q.save_all()
  Q.save_waiting()
  Q.save_ends()
  Q.relevel_all()
  local may = Q.save_lanes()
  if may and Q.fresh > 0 then
    Q.wake(Q.fresh)
  end
  if Q.earliest then
    Q.wake_keeper(Q.earliest)
  end
  Q.tell_room()
  Q.save_numbers()
end

function Q.answer_with(head, bytes)
  local answer = { mpack(head) }
  for i = 1, #bytes do
    answer[i + 1] = bytes[i]
  end
  return answer
end
