#!lua flags=allow-oom
-- Keeps a lease, and says what its worker is doing.
-- KEYS group meta   ARGV fence, log id, state, offset it is at, since (ms), attempt, error
-- -> OK next-offset | FENCED fence | NOGROUP | NOLOG
local h = redis.call('HMGET', KEYS[1], 'fence', 'owner')
if not h[1] then return {'NOGROUP'} end
if h[1] ~= ARGV[1] or h[2] == '' then return {'FENCED', h[1]} end
local meta = redis.call('HMGET', KEYS[2], 'id', 'next')
if meta[1] ~= ARGV[2] then return {'NOLOG'} end
redis.call('HINCRBY', KEYS[1], 'beat', 1)
redis.call('HSET', KEYS[1], 'state', ARGV[3], 'at', ARGV[4], 'since', ARGV[5], 'attempt', ARGV[6], 'error', ARGV[7])
return {'OK', meta[2]}
