#!lua
-- A named producer takes over its state on one partition: lower epochs are refused from here on.
-- KEYS meta producer   ARGV log id, epoch   -> OK [field value …] | NOLOG | FENCED epoch
if redis.call('HGET', KEYS[1], 'id') ~= ARGV[1] then return {'NOLOG'} end
local epoch = tonumber(ARGV[2])
if not epoch then return redis.error_reply('ERR open: bad epoch') end
local stored = redis.call('HGET', KEYS[2], 'epoch')
if stored and epoch < tonumber(stored) then return {'FENCED', stored} end
-- Always a write, so that WAIT on this connection covers the state that is returned.
redis.call('HSET', KEYS[2], 'epoch', ARGV[2])
return {'OK', redis.call('HGETALL', KEYS[2])}
