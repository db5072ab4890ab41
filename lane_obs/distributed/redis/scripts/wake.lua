-- Idle members, by how many commands they still take.
local function wake(n)
  while n > 0 do
    local one = call('ZPOPMAX', k_idle)
    if #one == 0 then
      return
    end
    if send(one[1], { 'w' }, '') > 0 or request.cluster then
      n = n - one[2]
    end
  end
end

-- The idle member that knows when something is due next; the others sleep.
local function keeper()
  local member = call('HGET', k_meta, 'keeper')
  return member and call('ZSCORE', k_idle, member) and member
end

-- Something is due earlier than the one who keeps the time knows.
local function wake_keeper(at)
  local known = tonumber(call('HGET', k_meta, 'known') or 0)
  local member = keeper()
  if not member then
    wake(1)
  elseif at < known or known == 0 then
    call('ZREM', k_idle, member)
    if send(member, { 'w' }, '') == 0 and not request.cluster then
      wake(1)
    end
  end
end

-- Tells those who wait for room in the bounded lanes of this run, as many as there is room for.
local function tell_room()
  for i = 1, #touched do
    local l = touched[i]
    local room = l.most < 0 and 0 or l.most - l.ready - l.delayed - l.backoff
    if room > 0 then
      local some = call('ZRANGE', k_room, '[' .. l.prefix, '(' .. spack('>I4', l.code + 1), 'BYLEX', 'LIMIT', 0,
        1000)
      for j = 1, #some do
        call('ZREM', k_room, some[j])
        send(ssub(some[j], 5), { 'o', { tostring(l.code) } }, '')
      end
    end
  end
end

-- Writes what a run has changed, and wakes who can do something about it.
local function save_all()
  save_waiting()
  save_ends()
  relevel_all()
  local may = save_lanes()
  if may and fresh > 0 then
    wake(fresh)
  end
  if earliest then
    wake_keeper(earliest)
  end
  tell_room()
  save_numbers()
end

local function answer_with(head, bytes)
  local answer = { mpack(head) }
  for i = 1, #bytes do
    answer[i + 1] = bytes[i]
  end
  return answer
end
