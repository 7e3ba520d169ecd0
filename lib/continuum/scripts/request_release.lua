#!lua
-- Asks the worker of a partition to do something about a key's dead letters (PROTOCOLS: Held keys). Needs no fence: only
-- the holder of the lease acts, and takes the request away with the commit that does what it asks.
-- KEYS group held   ARGV handler/key, request   -> OK | NONE (no such letters) | NOGROUP
if redis.call('EXISTS', KEYS[1]) == 0 then return {'NOGROUP'} end
if redis.call('HEXISTS', KEYS[2], 'n/' .. ARGV[1]) == 0 then return {'NONE'} end
redis.call('HSET', KEYS[2], 'r/' .. ARGV[1], ARGV[2])
redis.call('HINCRBY', KEYS[1], 'requests', 1)
return {'OK'}
