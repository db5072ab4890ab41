-- Joins the queue, which is made where it is not there; answers 2 where this member only looks and there is none.
-- Its first argument is the member, the third what is asked: see open.lua.
local wanted = cmsgpack.unpack(ARGV[3])
local kind = redis.call('TYPE', k_meta).ok
local version = kind == 'hash' and redis.call('HGET', k_meta, 'version') or nil
if kind ~= 'none' and version ~= wanted.version then
  return { 'version', version or kind }
end
if not version then
  if wanted.looks then
    return 2
  end
  local never = 9007199254740992
  redis.call('HSET', k_meta, 'version', wanted.version, 'n', struct.pack('<c8ddddddddddddddddc8', wanted.epoch, 0, 0, 0, 0, 0, -1,
    0, 0, 0, 0, 1, never, never, never, 0, 0, '\0\0\0\0\0\0\0\0'))
end
