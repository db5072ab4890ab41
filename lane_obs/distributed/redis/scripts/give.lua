-- What was claimed for an idle member goes to it with the message that wakes it; it is held by it from its next call on.
Q.MOST_GIVEN, Q.LONGEST = 8, 100000

function Q.give(member, first_token, holds, rows, odd, bodies)
  local sizes, whole = {}, 0
  for i = 1, #bodies do
    sizes[i] = #bodies[i]
    whole = whole + sizes[i]
  end
  call('HSET', k_pushed, member, mpack({ token = first_token + 1, count = #bodies, holds = holds }))
  call('HINCRBY', k_loads, member, #bodies)
  if whole <= Q.LONGEST then
    Q.send(member, { 't', rows, odd, first_token, sizes }, table.concat(bodies))
  else
    Q.send(member, { 'w' }, '') -- its turn has them: too much for what may wait for a listener
  end
end
