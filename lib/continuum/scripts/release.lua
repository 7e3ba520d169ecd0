#!lua flags=allow-oom
-- Gives a lease back, so that another worker need not wait for its end.
-- KEYS group   ARGV fence   -> OK | FENCED
if redis.call('HGET', KEYS[1], 'fence') ~= ARGV[1] then return {'FENCED'} end
redis.call('HSET', KEYS[1], 'owner', '')
return {'OK'}
