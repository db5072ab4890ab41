-- A push: what an idle member's next turn would claim is claimed for it, and the message that wakes it has it.
Q.LONGEST = 100000

-- Claims for a member that can take so many; tells how many it has got. What it is given is held at its next call.
function Q.push(member, missing)
  Q.pass_due()
  Q.save_waiting()
  local first_token = Q.token
  Q.claim(math.min(missing, Q.MOST_PUSHED))
  local n = #Q.taken
  if n > 0 then
    local holds, sizes, whole = Q.hand_out(first_token, member), {}, 0
    call('HSET', k_pushed, member, mpack({ token = first_token + 1, count = n, holds = holds }))
    call('HINCRBY', k_loads, member, n)
    for i = 1, n do
      sizes[i] = #Q.bodies[i]
      whole = whole + sizes[i]
    end
    if whole <= Q.LONGEST then
      Q.send(member, { 't', Q.rows, Q.odd, first_token, sizes }, table.concat(Q.bodies))
    else
      Q.send(member, { 'w' }, '') -- its turn is given them: no limit on what may wait for a listener is in their way
    end
  end
  if Q.gates then
    Q.save_limits()
  end
  if Q.was_due or Q.was_rising then
    Q.look_ahead()
  end
  return n
end
