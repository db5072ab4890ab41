-- What was pushed to a member is among what it holds as soon as it is looked at.

-- Gives what was pushed to it since: the first token, how many, their ids and holds; nil for nothing.
function Q.adopt(member)
  local raw = call('HGET', k_pushed, member)
  if not raw then
    return nil
  end
  local pushed = munpack(raw)
  call('HDEL', k_pushed, member)
  call('HSET', k_held, unpack(pushed.holds))
  return pushed
end
