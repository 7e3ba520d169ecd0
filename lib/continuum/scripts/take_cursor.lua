#!lua
-- Takes the lease of a replay's cursor, and creates it at first. As acquire does for a group. One that no run has moved is
-- of no selection yet.
-- KEYS topic cursor
-- ARGV 1 log id  2 name  3 owner  4 seen fence  5 seen beat  6 ttl in ms  7 who  8 selection, or nothing: any that is there
-- -> OK fence [field value …] | HELD owner fence beat ttl who | OTHER selection | NOCURSOR | NOLOG
if redis.call('HGET', KEYS[1], 'id') ~= ARGV[1] then return {'NOLOG'} end
local h = redis.call('HMGET', KEYS[2], 'owner', 'fence', 'beat', 'ttl', 'who', 'selection', 'generation')
if not h[2] and ARGV[8] == '' then return {'NOCURSOR'} end
if h[7] and ARGV[8] ~= '' and h[6] ~= ARGV[8] then return {'OTHER', h[6]} end
local fence = h[2]
if h[1] ~= ARGV[3] then
  if h[2] and h[1] ~= '' and (h[2] ~= ARGV[4] or h[3] ~= ARGV[5]) then
    return {'HELD', h[1], h[2], h[3], h[4] or '0', h[5] or ''}
  end
  local now = redis.call('TIME')
  fence = string.format('%.0f', math.max((tonumber(h[2] or '0') or 0) + 1, tonumber(now[1]) * 1000000 + tonumber(now[2])))
  if not h[7] and ARGV[8] ~= '' then
    redis.call('HSET', KEYS[1], 'cursor:' .. ARGV[2], fence)
    redis.call('HSET', KEYS[2], 'selection', ARGV[8], 'run', fence, 'events', '0')
  end
  redis.call('HSET', KEYS[2], 'owner', ARGV[3], 'fence', fence, 'beat', '0', 'ttl', ARGV[6], 'who', ARGV[7])
end
return {'OK', fence, redis.call('HGETALL', KEYS[2])}
