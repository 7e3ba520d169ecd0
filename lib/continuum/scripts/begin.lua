#!lua
-- Begins a generation of the ring (PROTOCOLS: Resize, step 1). Generation 1 is the creation of the topic.
-- KEYS topic   ARGV active generation expected, description, then field and value: settings for a new topic, or
--   descriptions (gen:N) of generations that the server lost, which count as used from then on
-- -> OK x | BUSY pending | CHANGED active | EXISTS
local h = redis.call('HMGET', KEYS[1], 'active', 'pending')
local expected = tonumber(ARGV[1])
if not expected or #ARGV % 2 ~= 0 then return redis.error_reply('ERR begin: bad argument') end
if h[2] then return {'BUSY', h[2]} end
local active = tonumber(h[1] or '0')
if active ~= expected then return {'CHANGED', h[1] or '0'} end
if h[1] then
  for i = 3, #ARGV, 2 do redis.call('HSETNX', KEYS[1], ARGV[i], ARGV[i + 1]) end
end
local x = string.format('%.0f', active + 1)
while redis.call('HEXISTS', KEYS[1], 'gen:' .. x) == 1 do
  x = string.format('%.0f', tonumber(x) + 1)
end
if not h[1] then
  for i = 3, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
  redis.call('HSET', KEYS[1], 'active', '0')
end
redis.call('HSET', KEYS[1], 'gen:' .. x, ARGV[2], 'pending', x)
return {'OK', x}
