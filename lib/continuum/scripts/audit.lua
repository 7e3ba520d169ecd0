#!lua flags=allow-oom
-- Keeps what somebody did by hand (PROTOCOLS: Audit). Also on a full server: what makes room there is written down
-- first. An entry is small, and there are only so many.
-- KEYS audit   ARGV entries at most, field, value …   -> id
local most = tonumber(ARGV[1])
local size = 0
for i = 2, #ARGV do size = size + #ARGV[i] end
if not most or #ARGV < 3 or #ARGV % 2 ~= 1 or size > 8192 then return redis.error_reply('ERR audit: bad argument') end
return redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', unpack(ARGV, 2))
