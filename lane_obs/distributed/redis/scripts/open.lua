--@ create core lane level ready final wake declare
-- Joins the queue. request: version, epoch, looks, lanes, limit (-1: none), letters, lease, info, works.
-- Answers the epoch, the codes of all lanes by name, and the last token.
if not request.looks then
  for i = 1, #request.lanes do
    Q.declare(request.lanes[i])
  end
  if #request.lanes > 0 then
    if Q.limit ~= request.limit then -- it decides for every lane where it competes
      for _, code in ipairs(call('HVALS', k_names)) do
        Q.lane_of(math.abs(code))
      end
    end
    Q.limit, Q.most_letters = request.limit, request.letters
  end
  call('ZADD', k_members, now + request.lease * 1000, me)
  call('HSET', k_info, me, mpack(request.info))
  Q.fresh = 1
  Q.save_all()
end
return { mpack({ Q.epoch, call('HGETALL', k_names), Q.token }) }
