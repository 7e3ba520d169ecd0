#!lua flags=allow-oom
-- Takes a group out of its topic (PROTOCOLS: Groups). A transaction would be refused by a full server.
-- KEYS topic members   ARGV log id, group   -> OK | DROPPED
if redis.call('HGET', KEYS[1], 'id') ~= ARGV[1] then return {'DROPPED'} end
redis.call('HDEL', KEYS[1], 'group:' .. ARGV[2])
redis.call('UNLINK', KEYS[2])
return {'OK'}
