--@ core lane level ready final wake
-- Forgets dead letters: those of the ids given, or some of all. Answers how many there were.
local ids, count = request.ids or call('ZRANGE', k_letter_order, 0, 499), 0
for i = 1, #ids do
  local record = call('HGET', k_letters, ids[i])
  if record then
    Q.remove_letter(ids[i], record)
    count = count + 1
  end
end
Q.save_all()
return { mpack({ count }) }
