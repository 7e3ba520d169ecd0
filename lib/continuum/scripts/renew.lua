#!lua flags=allow-oom
-- Keeps a lease, and says what its worker is doing.
-- KEYS group meta   ARGV fence, log id, state, handler, offset it is at, since (ms), attempt, error, busy (permille),
--   fingerprint of its handlers
-- -> OK next-offset requests pause generation | FENCED fence | NOGROUP | NOLOG
local h = redis.call('HMGET', KEYS[1], 'fence', 'owner', 'requests', 'paused')
if not h[1] then return {'NOGROUP'} end
if h[1] ~= ARGV[1] or h[2] == '' then return {'FENCED', h[1]} end
local meta = redis.call('HMGET', KEYS[2], 'id', 'next', 'gen')
if meta[1] ~= ARGV[2] then return {'NOLOG'} end
redis.call('HINCRBY', KEYS[1], 'beat', 1)
redis.call('HSET', KEYS[1], 'state', ARGV[3], 'handler', ARGV[4], 'at', ARGV[5], 'since', ARGV[6], 'attempt', ARGV[7],
  'error', ARGV[8], 'busy', ARGV[9], 'handlers', ARGV[10])
return {'OK', meta[2], h[3] or '0', h[4] or '', meta[3]}
