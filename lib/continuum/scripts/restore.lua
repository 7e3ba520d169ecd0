#!lua
-- Puts entries of an archive back at the end of a log that is being restored, each with the id that it had.
-- KEYS log meta   ARGV id of the last entry there (0-0: none), then per entry: id, how many fields and values, they
-- -> OK | MOVED id (of the last entry that is there) | WHOLE (it is restored: it has its meta)
if redis.call('EXISTS', KEYS[2]) == 1 then return {'WHOLE'} end
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
last = last and last[1] or '0-0'
if last ~= ARGV[1] then return {'MOVED', last} end
local at = 2
while at <= #ARGV do
  local texts = tonumber(ARGV[at + 1])
  if not texts or texts < 2 or texts % 2 ~= 0 then return redis.error_reply('ERR restore: bad argument') end
  at = at + 2 + texts
end
if at ~= #ARGV + 1 then return redis.error_reply('ERR restore: bad argument') end
at = 2
while at <= #ARGV do
  local texts = tonumber(ARGV[at + 1])
  redis.call('XADD', KEYS[1], ARGV[at], unpack(ARGV, at + 2, at + 1 + texts))
  at = at + 2 + texts
end
return {'OK'}
