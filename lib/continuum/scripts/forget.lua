#!lua flags=allow-oom
-- Removes a group from one partition with all that it has there.
-- KEYS group dead held outbox meta log   ARGV fence, group   -> OK | FENCED fence | NOGROUP
local h = redis.call('HMGET', KEYS[1], 'fence', 'owner')
if h[1] and (h[1] ~= ARGV[1] or h[2] == '') then return {'FENCED', h[1]} end
redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3], KEYS[4])
redis.call('HDEL', KEYS[5], 'group:' .. ARGV[2])
redis.pcall('XGROUP', 'DESTROY', KEYS[6], ARGV[2])
if not h[1] then return {'NOGROUP'} end
return {'OK'}
