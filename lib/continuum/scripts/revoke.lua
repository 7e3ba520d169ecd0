#!lua flags=allow-oom
-- Takes a lease away from whoever has it. The fence rises, so that what the old owner still does is refused.
-- KEYS group   ARGV fence that was seen   -> OK fence | FREE | CHANGED | NOGROUP
local h = redis.call('HMGET', KEYS[1], 'fence', 'owner')
if not h[1] then return {'NOGROUP'} end
if h[1] ~= ARGV[1] then return {'CHANGED'} end
if h[2] == '' then return {'FREE'} end
local now = redis.call('TIME')
local fence = string.format('%.0f', math.max(tonumber(h[1]) + 1, tonumber(now[1]) * 1000000 + tonumber(now[2])))
redis.call('HSET', KEYS[1], 'owner', '', 'fence', fence)
return {'OK', fence}
