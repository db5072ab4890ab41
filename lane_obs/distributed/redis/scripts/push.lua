-- Claims for an idle member what its next turn would; tells how many commands it has got.
function Q.push(member, missing)
  Q.pass_due()
  Q.save_waiting()
  local first_token = Q.token
  Q.claim(math.min(missing, Q.MOST_GIVEN))
  if #Q.taken > 0 then
    local holds = Q.hand_out(first_token, member)
    Q.give(member, first_token, holds, Q.rows, Q.odd, Q.bodies)
  end
  if Q.gates then
    Q.save_limits()
  end
  if Q.was_due or Q.was_rising then
    Q.look_ahead()
  end
  return #Q.taken
end
