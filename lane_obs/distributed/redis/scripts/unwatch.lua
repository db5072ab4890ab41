--@ core
-- Ends watches.
local ids = request.ids
local members = call('HMGET', k_watch, unpack(ids))
for i = 1, #ids do
  local others = members[i] or ''
  local rest = {}
  for at = 1, #others, 8 do
    local member = ssub(others, at, at + 7)
    if member ~= me then
      rest[#rest + 1] = member
    end
  end
  if #rest > 0 then
    call('HSET', k_watch, ids[i], table.concat(rest))
  else
    call('HDEL', k_watch, ids[i])
  end
end
return { mpack({}) }
