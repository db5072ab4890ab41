-- Token buckets, as core/limit.py has them: what a bucket has to give follows from all that was taken since it was full
-- last, so that a correction counts as if it had been known from the start.
-- Of one: tokens taken in the present run, `at` the time at which that began, `full_at` when it is full again, and its
-- `dips`, times and amounts one after another, increasing: between the entry before and this one, what was taken in the
-- run less what flowed in was never less than that. Below zero the bucket ran over.

--@cold
Q.SAME = 0.001 -- microseconds: two times that are closer are one
Q.MOST_DIPS = 32

local function change(g, more)
  g.tokens = g.tokens + more
  g.full_at = g.at + (g.tokens - math.min(g.dips[2] or 0, 0)) / g.rate
end

local function note(g)
  local dips = g.dips
  local low = math.max(g.tokens - (now - g.at) * g.rate, math.min(dips[2] or 0, 0))
  local n = #dips
  while n > 0 and dips[n] >= low do
    dips[n], dips[n - 1] = nil, nil
    n = n - 2
  end
  if dips[n - 1] == now then
    return
  end
  dips[n + 1], dips[n + 2] = now, low
  if n >= 2 * Q.MOST_DIPS then -- the two oldest become one: the later time and the lower amount hold for both
    local lowest = dips[2]
    table.remove(dips, 1)
    table.remove(dips, 1)
    dips[2] = lowest
  end
end

-- When a cost may be taken.
function Q.bucket_due(g, cost)
  return g.full_at - (g.burst - cost) / g.rate
end

function Q.take_from_bucket(g, cost)
  if now - g.full_at >= Q.SAME then
    g.at, g.tokens, g.dips = now, 0, {}
  elseif g.dips[#g.dips - 1] ~= now then
    note(g)
  end
  change(g, cost)
end

-- Corrects what was taken then by so much.
function Q.settle_bucket(g, more, taken_at)
  local dips = g.dips
  if taken_at < g.at then
    if more < 0 then
      return
    end
    taken_at = g.at
  elseif taken_at - g.full_at >= Q.SAME then -- it was for nothing, from a full bucket: now it begins a run
    g.at, g.tokens, dips = taken_at, 0, {}
    g.dips = dips
  end
  local first = 1
  while dips[first] and dips[first] <= taken_at do
    first = first + 2
  end
  -- Of the first entry after the take, a part may be from before it: that is not lifted.
  local begun = dips[first - 2] or g.at
  for i = (more < 0 or begun == taken_at) and first or first + 2, #dips, 2 do
    dips[i + 1] = dips[i + 1] + more
  end
  while first > 1 and dips[first] and dips[first - 1] >= dips[first + 1] do
    table.remove(dips, first - 2)
    table.remove(dips, first - 2)
    first = first - 2
  end
  change(g, more)
end
