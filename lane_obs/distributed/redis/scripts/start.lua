-- What the start of a command with flags takes with it.

--@cold
function Q.start_flagged(l, c)
  Q.stop_rising(c)
  if Q.has(c, Q.PARTED) and not Q.has(c, Q.STARTED) then
    c.flags = c.flags + Q.STARTED
    Q.hold_part(l, c, 1)
  end
  if Q.has(c, Q.DATED) then
    call('ZREM', k_deadlines, c.id)
  end
end
