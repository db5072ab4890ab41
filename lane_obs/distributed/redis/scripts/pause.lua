--@ core lane ready level final wake
-- Pauses or resumes a lane. request: lane (its code), paused. Answers whether that changed anything.
local l = lane_of(request.lane)
local changed = (l.paused == 1) ~= request.paused
if changed then
  l.paused = request.paused and 1 or 0
  fresh = 1
  save_all()
end
return answer_with({ changed }, {})
