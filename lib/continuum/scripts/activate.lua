#!lua flags=allow-oom
-- Makes the pending generation the active one (PROTOCOLS: Resize, step 4).
-- KEYS topic   ARGV generation   -> OK | ALREADY active | NO
local h = redis.call('HMGET', KEYS[1], 'active', 'pending')
if h[2] == ARGV[1] then
  redis.call('HSET', KEYS[1], 'active', ARGV[1])
  redis.call('HDEL', KEYS[1], 'pending')
  return {'OK'}
end
if tonumber(h[1] or '0') >= tonumber(ARGV[1]) then return {'ALREADY', h[1]} end
return {'NO'}
