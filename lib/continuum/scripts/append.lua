#!lua
-- Appends one frame if it follows what its producer appended last (PROTOCOLS: Append).
-- KEYS log meta producer
-- ARGV 1 log id  2 generation  3 named|unnamed  4 epoch  5 previous position  6 last position  7 digest
--      8 events  9 field (e|z)  10 frame  11 producer
-- -> OK offset id | DUPLICATE position end | GAP position | STALE g | BEHIND g | FENCED | UNKNOWN | EXPIRED | NOLOG
local meta = redis.call('HMGET', KEYS[2], 'id', 'gen', 'next')
if meta[1] ~= ARGV[1] then return {'NOLOG'} end
local g, epoch, prev, last, count = tonumber(ARGV[2]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[8])
if not (g and epoch and prev and last and count and count >= 1 and last > prev and (ARGV[9] == 'e' or ARGV[9] == 'z')) then
  return redis.error_reply('ERR append: bad argument')
end
local pos, dig, stop = 'pos.' .. ARGV[2], 'dig.' .. ARGV[2], 'end.' .. ARGV[2]
local state = redis.call('HMGET', KEYS[3], 'epoch', pos, stop, dig)
if state[1] and epoch < tonumber(state[1]) then return {'FENCED'} end
local now = tonumber(meta[2])
if g < now then return {'STALE', meta[2]} end
if g > now then return {'BEHIND', meta[2]} end
local named = ARGV[3] == 'named'
if not state[1] then
  if named then return {'UNKNOWN'} end
  if prev > 0 then return {'EXPIRED'} end
end
local stored = tonumber(state[2] or '0')
if last <= stored then
  redis.call('HSET', KEYS[3], 'epoch', ARGV[4])
  return {'DUPLICATE', state[2], state[3]}
end
if prev ~= stored then return {'GAP', state[2] or '0'} end
-- NOMKSTREAM: a log that somebody deleted is loss, not a new log.
local id
if named then
  id = redis.call('XADD', KEYS[1], 'NOMKSTREAM', '*', 'n', ARGV[8], 'o', meta[3], 'g', ARGV[2],
    'p', ARGV[11], 'l', ARGV[6], 'd', ARGV[7], ARGV[9], ARGV[10])
else
  id = redis.call('XADD', KEYS[1], 'NOMKSTREAM', '*', 'n', ARGV[8], 'o', meta[3], 'g', ARGV[2], ARGV[9], ARGV[10])
end
if not id then return {'NOLOG'} end
local after = string.format('%.0f', tonumber(meta[3]) + count)
redis.call('HSET', KEYS[2], 'next', after)
redis.call('HSET', KEYS[3], 'epoch', ARGV[4], pos, ARGV[6], dig, ARGV[7], stop, after)
if not named then redis.call('PEXPIRE', KEYS[3], 86400000) end
return {'OK', meta[3], id}
