--@ core
-- Asks for the ends of commands. Answers, of those that have ended, index and state, one after another, and results.
local ids = request.ids
local heads, members, kept = call('HMGET', k_heads, unpack(ids)), call('HMGET', k_watch, unpack(ids)),
  call('HMGET', k_results, unpack(ids))
local news, found, answer = {}, {}, { '' }
for i = 1, #ids do
  if heads[i] then
    local others = members[i] or ''
    local has_me = false
    for at = 1, #others, 8 do
      has_me = has_me or ssub(others, at, at + 7) == me
    end
    if not has_me then
      news[#news + 1] = ids[i]
      news[#news + 1] = others .. me
    end
  elseif kept[i] and sunpack('<d', kept[i]) > now then
    local size = sunpack('>B', kept[i], 9)
    found[#found + 1] = i
    found[#found + 1] = ssub(kept[i], 10, 9 + size)
    answer[#answer + 1] = ssub(kept[i], 10 + size)
  else
    found[#found + 1] = i
    found[#found + 1] = 'unknown'
    answer[#answer + 1] = ''
  end
end
if #news > 0 then
  call('HSET', k_watch, unpack(news))
end
answer[1] = mpack(found)
return answer
