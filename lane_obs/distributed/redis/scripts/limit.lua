-- Rate limits, boosts and parts in the claim.
local function admit(_, _)
  return true
end

local function after_take(_, _, _) end

local function settle_cost(_, _, _) end

local function start_flagged(l, c)
  local flags = c.flags
  if has(c, PARTED) and not has(c, STARTED) then
    flags = flags + STARTED
    hold_part(l, c, 1)
  end
  if has(c, DATED) then
    call('ZREM', k_deadlines, c.id)
  end
  return flags
end
