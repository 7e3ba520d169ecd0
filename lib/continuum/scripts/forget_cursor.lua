#!lua flags=allow-oom
-- Removes a replay's cursor, whose lease we have.
-- KEYS topic cursor   ARGV fence, name   -> OK | FENCED
if redis.call('HGET', KEYS[2], 'fence') ~= ARGV[1] then return {'FENCED'} end
redis.call('DEL', KEYS[2])
redis.call('HDEL', KEYS[1], 'cursor:' .. ARGV[2])
return {'OK'}
