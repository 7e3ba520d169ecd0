#!lua flags=allow-oom
-- Takes the lease of a group on one partition if it is free, ours, or stood still since (fence, beat) was seen.
-- KEYS group   ARGV owner, seen fence, seen beat, ttl in ms, who (for people)
-- -> OK fence number offset entry passed from import | HELD owner fence beat ttl who | NOGROUP
local h = redis.call('HMGET', KEYS[1], 'owner', 'fence', 'beat', 'number', 'offset', 'entry', 'passed', 'from', 'ttl', 'who', 'import')
if not h[5] then return {'NOGROUP'} end
local fence = h[2]
if h[1] ~= ARGV[1] then
  if h[1] ~= '' and (h[2] ~= ARGV[2] or h[3] ~= ARGV[3]) then
    return {'HELD', h[1], h[2], h[3], h[9] or '0', h[10] or ''}
  end
  local now = redis.call('TIME')
  fence = string.format('%.0f', math.max(tonumber(h[2]) + 1, tonumber(now[1]) * 1000000 + tonumber(now[2])))
  redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'fence', fence, 'beat', '0', 'ttl', ARGV[4], 'who', ARGV[5],
    'state', 'running', 'error', '', 'attempt', '0', 'handlers', '')
end
return {'OK', fence, h[4], h[5], h[6], h[7], h[8], h[11] or ''}
