#!lua flags=allow-oom
-- Gives the pending generation up: it becomes a copy of the active one, and is sealed and activated as such, because
-- what is sealed cannot be opened again (PROTOCOLS: Resize, abort). KEYS topic   ARGV generation
-- -> OK | NO active
local h = redis.call('HMGET', KEYS[1], 'active', 'pending')
if h[2] ~= ARGV[1] then return {'NO', h[1] or '0'} end
local description = redis.call('HGET', KEYS[1], 'gen:' .. (h[1] or '0'))
if not description then return redis.error_reply('ERR abort: the creation of a topic cannot be aborted') end
redis.call('HSET', KEYS[1], 'gen:' .. ARGV[1], description)
return {'OK'}
