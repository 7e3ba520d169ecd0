#!lua
-- Makes the log of a restored partition whole: from here on it can be read and appended to.
-- KEYS log meta   ARGV id of the last entry, log id, generation, born, next offset, trimmed generation,
--   first offset (or nothing: the archive begins where the log did), an id before that of its entry
-- -> OK | MOVED id (of the last entry that is there) | WHOLE
if redis.call('EXISTS', KEYS[2]) == 1 then return {'WHOLE'} end
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
last = last and last[1] or '0-0'
if last ~= ARGV[1] then return {'MOVED', last} end
redis.call('HSET', KEYS[2], 'id', ARGV[2], 'gen', ARGV[3], 'born', ARGV[4], 'next', ARGV[5], 'trimmed', ARGV[6],
  'format', '1')
if ARGV[7] ~= '' then redis.call('HSET', KEYS[2], 'trimmed_offset', ARGV[7], 'trimmed_entry', ARGV[8]) end
return {'OK'}
