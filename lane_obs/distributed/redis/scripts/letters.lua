--@ core
-- Dead letters, oldest first. request: after (an id, or false), limit. Answers their ids, and what is kept of each.
local from = '-inf'
if request.after then
  local at = call('ZSCORE', k_letter_order, request.after)
  if not at then
    return { mpack({ {}, {} }) }
  end
  from = '(' .. at
end
local ids = call('ZRANGE', k_letter_order, from, '+inf', 'BYSCORE', 'LIMIT', 0, request.limit)
local codes, answer = {}, { '' }
local kept = #ids > 0 and call('HMGET', k_letters, unpack(ids)) or {}
for i = 1, #ids do
  answer[i + 1] = kept[i]
  codes[i] = munpack(ssub(kept[i], 5, 4 + sunpack('>I4', kept[i])))[1]
end
answer[1] = mpack({ ids, codes })
return answer
