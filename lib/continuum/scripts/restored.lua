#!lua
-- Makes the log of a restored partition whole: from here on it can be read and appended to. One of which the
-- archive has nothing begins with the barrier of its generation.
-- KEYS log meta restoring   ARGV id of the last entry (0-0: none), log id, generation, born, next offset, trimmed
--   generation, first offset (or nothing: the archive begins where the log did), an id before that of its entry
-- -> OK | MOVED id (of the last entry that is there) | WHOLE | NOLOG (the topic was dropped meanwhile, or is
--   restored anew)
local meta = redis.call('HGET', KEYS[2], 'id')
if meta then return {meta == ARGV[2] and 'WHOLE' or 'NOLOG'} end
if redis.call('GET', KEYS[3]) ~= ARGV[2] then return {'NOLOG'} end
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
last = last and last[1] or '0-0'
if last ~= ARGV[1] then return {'MOVED', last} end
if last == '0-0' then redis.call('XADD', KEYS[1], '*', 'barrier', ARGV[3], 'o', ARGV[5]) end
redis.call('HSET', KEYS[2], 'id', ARGV[2], 'gen', ARGV[3], 'born', ARGV[4], 'next', ARGV[5], 'trimmed', ARGV[6],
  'format', '1')
if ARGV[7] ~= '' then redis.call('HSET', KEYS[2], 'trimmed_offset', ARGV[7], 'trimmed_entry', ARGV[8]) end
redis.call('DEL', KEYS[3])
return {'OK'}
