-- What the start of a command with flags takes with it.
local function start_flagged(l, c)
  stop_rising(c)
  if has(c, PARTED) and not has(c, STARTED) then
    c.flags = c.flags + STARTED
    hold_part(l, c, 1)
  end
  if has(c, DATED) then
    call('ZREM', k_deadlines, c.id)
  end
  return c.flags
end
