#!lua
-- A new epoch for a named producer: higher than any before it, also after the counter was lost.
-- KEYS topic   ARGV log id, producer   -> OK epoch | NOLOG
if redis.call('HGET', KEYS[1], 'id') ~= ARGV[1] then return {'NOLOG'} end
local stored = tonumber(redis.call('HGET', KEYS[1], 'epoch:' .. ARGV[2]) or '0')
local now = redis.call('TIME')
local epoch = math.max(stored + 1, tonumber(now[1]) * 1000000 + tonumber(now[2]))
local text = string.format('%.0f', epoch)
redis.call('HSET', KEYS[1], 'epoch:' .. ARGV[2], text)
return {'OK', text}
