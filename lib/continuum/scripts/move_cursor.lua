#!lua flags=allow-oom
-- Keeps the lease of a replay's cursor, and moves it.
-- KEYS cursor   ARGV fence, field, value, field, value …   -> OK | FENCED
local h = redis.call('HMGET', KEYS[1], 'fence', 'owner')
if h[1] ~= ARGV[1] or h[2] == '' or #ARGV % 2 == 0 then return {'FENCED'} end
redis.call('HINCRBY', KEYS[1], 'beat', 1)
for i = 2, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
end
return {'OK'}
