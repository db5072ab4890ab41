-- The command of a lane that is ready for the longest time. Those that never waited for anything else became so in the order
-- in which they came, so that of each level the first of them ends the search.
Q.MOST_READ = 100 -- of those that came back: with more of them in front, the oldest of these

--@cold
-- prefix: the lane's; has_levels: whether its commands are on several; held: how many are behind others. What is new must be
-- written before; nil for none.
function Q.oldest(prefix, has_levels, held)
  local oldest, from = nil, '[' .. prefix
  local until_ = '(' .. spack('>I4', sunpack('>I4', prefix) + 1)

  local function look_at(id)
    local c = Q.to_command(id, call('HGET', k_heads, id))
    if not oldest or c.since < oldest.since or (c.since == oldest.since and c.seq < oldest.seq) then
      oldest = c
    end
    return c
  end

  for _ = 1, Q.MOST_READ do
    local place = call('ZRANGE', k_ready, from, until_, 'BYLEX', 'LIMIT', 0, 1)[1]
    local c = place and look_at(ssub(place, 15))
    if not c then
      break
    elseif c.since ~= c.submitted then
      from = '(' .. place
    elseif has_levels then
      from = '[' .. prefix .. spack('>I4', sunpack('>I4', place, 5) + 1)
    else
      break
    end
  end
  local behind = held > 0 and call('ZRANGE', k_behind_by_age, '[' .. prefix, until_, 'BYLEX', 'LIMIT', 0, 1)[1]
  if behind then
    look_at(ssub(behind, 18))
  end
  return oldest
end
