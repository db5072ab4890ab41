--@ core lane level ready final wake
-- Pauses or resumes a lane. request: lane, paused. Answers whether that changed anything; nothing
-- where there is no such lane.
local code = tonumber(call('HGET', k_names, request.lane) or -1)
if code < 0 then
  return { mpack({}) }
end
local l = Q.lane_of(code)
local changed = (l.paused == 1) ~= request.paused
if changed then
  l.paused = request.paused and 1 or 0
  if l.gated ~= 0 then
    Q.leave_gate(l) -- those behind it need not wait for it
  end
  Q.fresh = 1
  Q.save_all()
end
return Q.answer_with({ changed }, {})
