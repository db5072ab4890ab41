--@ core lane level ready final wake
-- Makes dead letters commands again. Answers the ids of those there were.
local done = {}
for i = 1, #request.ids do
  local id = request.ids[i]
  local record = call('HGET', k_letters, id)
  if record and call('HEXISTS', k_heads, id) == 0 then
    local head, body, l = remove_letter(id, record)
    seq = seq + 1
    submitted = submitted + 1
    local c = { id = id, lane = l.code, flags = 0, attempt = 0, deaths = 0, level = LEVEL, delayed = 0, backed = 0,
      submitted = now, deadline = 0, cost = head[6], origin = me, seq = seq, part = head[7], key = head[8] }
    if c.part ~= '' then
      c.flags = PARTED
    end
    if c.key ~= '' then
      if call('HSETNX', k_keys, l.prefix .. c.key, id) == 1 then
        c.flags = c.flags + KEYED
      else
        c.key = ''
      end
    end
    call('HSET', k_bodies, id, body)
    put_ready(l, c)
    done[#done + 1] = id
  end
end
save_all()
return { mpack(done) }
