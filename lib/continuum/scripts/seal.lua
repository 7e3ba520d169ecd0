#!lua flags=allow-oom
-- Ends the old generation on one partition by a barrier entry (PROTOCOLS: Resize, step 2).
-- KEYS meta log   ARGV log id, generation, new|old (whether the partition is in no earlier generation)
-- -> OK | ALREADY g | NOLOG
local meta = redis.call('HMGET', KEYS[1], 'id', 'gen', 'next')
local x = tonumber(ARGV[2])
if not x then return redis.error_reply('ERR seal: bad generation') end
if meta[1] then
  if meta[1] ~= ARGV[1] then return {'NOLOG'} end
  if tonumber(meta[2]) >= x then return {'ALREADY', meta[2]} end
elseif ARGV[3] ~= 'new' then
  return {'NOLOG'}
end
redis.call('XADD', KEYS[2], '*', 'barrier', ARGV[2], 'o', meta[3] or '0')
if meta[1] then
  redis.call('HSET', KEYS[1], 'gen', ARGV[2])
else
  redis.call('HSET', KEYS[1], 'id', ARGV[1], 'gen', ARGV[2], 'born', ARGV[2], 'next', '0', 'trimmed', '0', 'format', '1')
end
return {'OK'}
