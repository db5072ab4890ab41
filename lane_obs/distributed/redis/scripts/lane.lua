-- Lanes: counts and policies of those that this run touches, and their places among the claimable ones.
-- ready, delayed, backoff, running, held by partitions, dead, paused, gated; priority, min, max, most pending (-1: none),
-- flags; level, when last served and lined up, place (0: none, 1: own, 2: open).
Q.LANE = '<ddddddddddddddddd'
Q.LIMITED, Q.BOOSTED, Q.AGEING, Q.RUNS_LATE, Q.DIVIDED, Q.OWN, Q.OPEN = 1, 2, 4, 8, 16, 1, 2
Q.lanes, Q.touched = {}, {}

function Q.keep_lane(l)
  Q.lanes[l.code] = l
  Q.touched[#Q.touched + 1] = l
  return l
end

function Q.lane_of(code)
  local l = Q.lanes[code]
  if l then
    return l
  end
  local raw = call('HGET', k_state, spack('>I4', code))
  if not raw then
    return nil
  end
  l = { code = code, prefix = spack('>I4', code) }
  l.ready, l.delayed, l.backoff, l.running, l.held, l.dead, l.paused, l.gated, l.priority, l.min, l.max, l.most, l.flags,
    l.level, l.served, l.asked, l.place = sunpack(Q.LANE, raw)
  l.was, l.was_level, l.was_turn = l.place, l.level, spack('>I6I6I4', l.served, l.asked, code)
  return Q.keep_lane(l)
end

-- Where a lane belongs now; lines it up anew where it was not.
function Q.place(l)
  local at = 0
  if l.ready > l.held and l.paused == 0 and l.running < l.max and l.gated == 0 then
    at = (Q.limit < 0 or l.running < l.min) and Q.OWN or Q.OPEN
    if l.place == 0 then
      Q.asked = Q.asked + 1
      l.asked = Q.asked
    end
  end
  l.place = at
  return at
end

function Q.lane_started(l)
  Q.running = Q.running + 1
  l.running = l.running + 1
  if l.running > l.min then
    Q.held = Q.held + 1
  end
end

function Q.lane_ended(l)
  Q.running = Q.running - 1
  l.running = l.running - 1
  if l.running >= l.min then
    Q.held = Q.held - 1
  end
end

-- Of a rate limit is kept: amount, seconds, burst (-1: a window); tokens taken, in the window or as bucket.lua says; since
-- when, and when a bucket is full again; the bucket's dips.
Q.GATE = '<dddddd'

-- What a rate limit of a lane is kept by: the name that Python gave it, or one of this lane's own.
function Q.limit_field(l, limit_)
  return ssub(limit_[1], 1, 1) == '.' and 'l' .. l.code .. limit_[1] or limit_[1]
end

Q.SETS = { k_own, k_open }

-- Whether a lane in this place may start something.
function Q.may_start(at)
  return (at == Q.OWN and (Q.limit < 0 or Q.running < Q.limit)) or (at == Q.OPEN and Q.held < Q.limit)
end

-- A call with many words: Lua passes some thousands at once and no more.
function Q.call_with(name, key, words)
  for from = 1, #words, 4000 do
    call(name, key, unpack(words, from, math.min(from + 3999, #words)))
  end
end

-- Writes all lanes that were touched; tells whether one of them may start something.
function Q.save_lanes()
  local state, out, into, may = {}, { {}, {} }, { {}, {} }, false
  for i = 1, #Q.touched do
    local l = Q.touched[i]
    local at = Q.place(l)
    local turn = spack('>I6I6I4', l.served, l.asked, l.code)
    if at ~= l.was or turn ~= l.was_turn or l.level ~= l.was_level then
      if l.was ~= 0 then
        local old = out[l.was]
        old[#old + 1] = l.was_turn
      end
      if at ~= 0 then
        local new = into[at]
        new[#new + 1], new[#new + 2] = l.level, turn
      end
      l.was, l.was_level, l.was_turn = at, l.level, turn
    end
    may = may or Q.may_start(at)
    state[#state + 1] = l.prefix
    state[#state + 1] = spack(Q.LANE, l.ready, l.delayed, l.backoff, l.running, l.held, l.dead, l.paused, l.gated,
      l.priority, l.min, l.max, l.most, l.flags, l.level, l.served, l.asked, at)
  end
  for at = 1, 2 do
    Q.call_with('ZREM', Q.SETS[at], out[at])
    Q.call_with('ZADD', Q.SETS[at], into[at])
  end
  Q.call_with('HSET', k_state, state)
  return may
end
