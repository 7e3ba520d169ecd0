#!lua
-- Puts entries of an archive back at the end of a log that is being restored, each with the id that it had, and
-- what named producers had stored with them.
-- KEYS log meta restoring, then producers
-- ARGV 1 log id  2 id of the last entry there (0-0: none); per producer of KEYS: generation, position, digest, end;
--   then per entry: id, how many fields and values, they
-- -> OK | MOVED id (of the last entry that is there) | WHOLE (it is restored: it has its meta)
--   | NOLOG (the topic was dropped meanwhile, or is restored anew)
if redis.call('EXISTS', KEYS[2]) == 1 then return {'WHOLE'} end
if redis.call('GET', KEYS[3]) ~= ARGV[1] then return {'NOLOG'} end
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
last = last and last[1] or '0-0'
if last ~= ARGV[2] then return {'MOVED', last} end
local entries = 3 + 4 * (#KEYS - 3)
local at = entries
while at <= #ARGV do
  local texts = tonumber(ARGV[at + 1])
  if not texts or texts < 2 or texts % 2 ~= 0 then return redis.error_reply('ERR restore: bad argument') end
  at = at + 2 + texts
end
if at ~= #ARGV + 1 then return redis.error_reply('ERR restore: bad argument') end
for i = 4, #KEYS do
  local a = 3 + 4 * (i - 4)
  local g = ARGV[a]
  redis.call('HSET', KEYS[i], 'epoch', '0', 'pos.' .. g, ARGV[a + 1], 'dig.' .. g, ARGV[a + 2], 'end.' .. g, ARGV[a + 3])
end
at = entries
while at <= #ARGV do
  local texts = tonumber(ARGV[at + 1])
  redis.call('XADD', KEYS[1], ARGV[at], unpack(ARGV, at + 2, at + 1 + texts))
  at = at + 2 + texts
end
return {'OK'}
