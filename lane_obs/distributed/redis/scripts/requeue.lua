--@ core lane level ready final wake
-- Makes dead letters commands again. Answers the ids of those there were, in lanes that are not forgotten.
local done, forgotten = {}, {}
local codes = call('HVALS', k_names)
for i = 1, #codes do
  forgotten[-tonumber(codes[i])] = true
end
for i = 1, #request.ids do
  local id = request.ids[i]
  local record = call('HGET', k_letters, id)
  local code = record and munpack(ssub(record, 5, 4 + sunpack('>I4', record)))[1]
  if record and not forgotten[code] and call('HEXISTS', k_heads, id) == 0 then
    local head, body, l = Q.remove_letter(id, record)
    Q.seq = Q.seq + 1
    Q.submitted = Q.submitted + 1
    local c = { id = id, lane = l.code, flags = 0, attempt = 0, deaths = 0, level = Q.LEVEL, delayed = 0, backed = 0,
      ran = 0, submitted = now, deadline = 0, cost = head[6], origin = me, seq = Q.seq, part = head[7], key = head[8] }
    if c.part ~= '' then
      c.flags = Q.PARTED
    end
    if c.key ~= '' then
      if call('HSETNX', k_keys, c.key, id) == 1 then
        c.flags = c.flags + Q.KEYED
      else
        c.key = ''
      end
    end
    call('HSET', k_bodies, id, body)
    Q.put_ready(l, c)
    done[#done + 1] = id
  end
end
Q.save_all()
return { mpack(done) }
