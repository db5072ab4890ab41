--@ core lane level ready final wake declare
-- Puts the policies of lanes in force. request: lanes, ttl.
for i = 1, #request.lanes do
  Q.declare(request.lanes[i])
end
Q.fresh = 1
Q.save_all()
return { mpack({}) }
