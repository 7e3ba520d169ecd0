#!lua flags=allow-oom
-- Moves a group's cursor (PROTOCOLS: Commit). Dead letters, held keys, releases, imports and the outbox
-- join this step, so that they and the cursor cannot disagree.
-- KEYS group log   ARGV fence, number, offset, entry, passed generation, group
-- -> OK | ALREADY | FENCED fence | CONFLICT number | NOGROUP
local h = redis.call('HMGET', KEYS[1], 'fence', 'number', 'owner')
if not h[1] then return {'NOGROUP'} end
if h[1] ~= ARGV[1] or h[3] == '' then return {'FENCED', h[1]} end
local number, stored = tonumber(ARGV[2]), tonumber(h[2])
if not number or not tonumber(ARGV[3]) or not tonumber(ARGV[5]) then
  return redis.error_reply('ERR commit: bad argument')
end
if number == stored then return {'ALREADY'} end
if number ~= stored + 1 then return {'CONFLICT', h[2]} end
redis.call('HSET', KEYS[1], 'number', ARGV[2], 'offset', ARGV[3], 'entry', ARGV[4], 'passed', ARGV[5])
redis.call('HINCRBY', KEYS[1], 'beat', 1)
-- The consumer group is for the eyes of other tools: without it nothing is wrong.
redis.pcall('XGROUP', 'SETID', KEYS[2], ARGV[6], ARGV[4])
return {'OK'}
