-- What was pushed to a member is among what it holds as soon as it is looked at.

-- Gives what was pushed to it since: the first token, how many, their ids and holds; nil for nothing.
-- only: takes it only where this is its first token; nil for any.
function Q.adopt(member, only)
  local raw = call('HGET', k_pushed, member)
  local pushed = raw and munpack(raw)
  if not pushed or only and pushed.token ~= only then
    return nil
  end
  call('HDEL', k_pushed, member)
  call('HSET', k_held, unpack(pushed.holds))
  return pushed
end
