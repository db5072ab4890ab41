--@ core oldest
-- The whole queue: numbers, lanes, members, ends by state.
local LANE, BOOSTED = '<ddddddddddddd', 2
local names, lanes = call('HGETALL', k_names), {}

local function add_lane(name, code)
  local prefix = spack('>I4', code)
  local ready, delayed, backoff, busy, held, dead, paused, _, priority, min, max, most, flags =
    sunpack(LANE, call('HGET', k_state, prefix))
  local oldest = ready > 0 and Q.oldest(prefix, band(flags, BOOSTED) ~= 0, held)
  lanes[#lanes + 1] = { name, ready, delayed, backoff, busy, dead, oldest and (now - oldest.since) / 1000000 or false,
    paused == 1, priority, min, max, most }
end

for i = 1, #names, 2 do
  local code = tonumber(names[i + 1])
  if code > 0 then
    add_lane(names[i], code)
  end
end
local members, live = {}, call('ZRANGE', k_members, 0, -1, 'WITHSCORES')
for i = 1, #live, 2 do
  local info = call('HGET', k_info, live[i])
  if info then
    local name, works, concurrency = unpack(munpack(info))
    members[#members + 1] = { name, works, concurrency, tonumber(call('HGET', k_loads, live[i]) or 0),
      (live[i + 1] - now) / 1000000 }
  end
end
local ended, all = {}, call('HGETALL', k_meta)
for i = 1, #all, 2 do
  if ssub(all[i], 1, 6) == 'ended:' then
    ended[#ended + 1] = ssub(all[i], 7)
    ended[#ended + 1] = tonumber(all[i + 1])
  end
end
return { mpack({ lanes, members, Q.limit, Q.submitted, ended, Q.returned, Q.letters, Q.evicted,
  tonumber(call('HGET', k_meta, 'version')) }) }
