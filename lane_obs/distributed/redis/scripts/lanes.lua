--@ core lane level ready final wake declare
-- Puts the policies of lanes in force. request: lanes, ttl.
for i = 1, #request.lanes do
  declare(request.lanes[i])
end
fresh = 1
save_all()
return { mpack({}) }
