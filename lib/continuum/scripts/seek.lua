#!lua flags=allow-oom
-- Puts a group's cursor somewhere else on one partition (PROTOCOLS: Held keys).
-- KEYS group log dead held outbox meta   ARGV fence, offset, entry, generation there, group
-- -> OK run | FENCED fence | DEAD letters | OUTBOX entries | TRIMMED first-offset | NOGROUP
local h = redis.call('HMGET', KEYS[1], 'fence', 'owner', 'offset', 'passed', 'from', 'import', 'reached')
if not h[1] then return {'NOGROUP'} end
if h[1] ~= ARGV[1] or h[2] == '' then return {'FENCED', h[1]} end
if not tonumber(ARGV[2]) or not tonumber(ARGV[4]) then return redis.error_reply('ERR seek: bad argument') end
local letters = redis.call('XLEN', KEYS[3])
if letters > 0 then return {'DEAD', string.format('%.0f', letters)} end
-- What was emitted belongs to this run: it is published before another one begins.
local outputs = redis.call('XLEN', KEYS[5])
if outputs > 0 then return {'OUTBOX', string.format('%.0f', outputs)} end
-- A trim that came after the target was looked up knew only the old cursor.
local first = redis.call('HGET', KEYS[6], 'trimmed_offset')
if first and ARGV[2] ~= h[3] and tonumber(ARGV[2]) < tonumber(first) then return {'TRIMMED', first} end
-- The last generation that others may have seen the group reach here: it outlives every seek.
local reached = 0
for i = 4, 7 do reached = math.max(reached, tonumber(string.match(h[i] or '', '^%d+')) or 0) end
local now = redis.call('TIME')
redis.call('HSET', KEYS[1], 'offset', ARGV[2], 'entry', ARGV[3], 'passed', '0', 'from', ARGV[4],
  'reached', string.format('%.0f', reached),
  'moved', string.format('%.0f', tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000)))
redis.call('HDEL', KEYS[1], 'state', 'handler', 'at', 'since', 'attempt', 'error', 'busy', 'import')
redis.call('DEL', KEYS[4])
local run = redis.call('HINCRBY', KEYS[1], 'run', 1)
redis.call('HINCRBY', KEYS[1], 'beat', 1)
-- The consumer group is for the eyes of other tools: without it nothing is wrong.
redis.pcall('XGROUP', 'SETID', KEYS[2], ARGV[5], ARGV[3])
return {'OK', string.format('%.0f', run)}
