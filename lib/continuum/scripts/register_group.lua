#!lua
-- Gives a group its cursor on one partition (PROTOCOLS: Groups).
-- KEYS group meta log   ARGV log id, group, start|end|since, milliseconds (since), generation of the registration
-- -> OK offset entry 1|0 (it had a cursor here, which is gone) | ALREADY offset entry | NOLOG
local meta = redis.call('HMGET', KEYS[2], 'id', 'gen', 'next', 'born', 'trimmed')
if meta[1] ~= ARGV[1] then return {'NOLOG'} end
local have = redis.call('HMGET', KEYS[1], 'offset', 'entry')
if have[1] then return {'ALREADY', have[1], have[2]} end
local known = redis.call('HEXISTS', KEYS[2], 'group:' .. ARGV[2])
local policy, from = ARGV[3], meta[5] or '0'
-- A partition born after the group was registered is the group's from its first event on.
if tonumber(meta[4]) > tonumber(ARGV[5]) then policy = 'start' end
local offset, entry = meta[3], '0-0'
local first
if policy == 'start' then
  first = redis.call('XRANGE', KEYS[3], '-', '+', 'COUNT', 1)[1]
elseif policy == 'since' then
  first = redis.call('XRANGE', KEYS[3], ARGV[4], '+', 'COUNT', 1)[1]
end
if first then
  for i = 1, #first[2], 2 do
    local field, value = first[2][i], first[2][i + 1]
    if field == 'o' then offset = value end
    -- The generation in force at the cursor: a barrier there is still to be passed.
    if field == 'g' then from = value end
    if field == 'barrier' then from = string.format('%.0f', tonumber(value) - 1) end
  end
  local before = redis.call('XREVRANGE', KEYS[3], '(' .. first[1], '-', 'COUNT', 1)[1]
  if before then entry = before[1] end
else
  from = meta[2]
  local last = redis.call('XREVRANGE', KEYS[3], '+', '-', 'COUNT', 1)[1]
  if last then entry = last[1] end
end
-- A group that is registered again after it was forgotten is in a run that no earlier one had: what is emitted is
-- numbered anew in it.
local now = redis.call('TIME')
local run = string.format('%.0f', tonumber(now[1]) * 1000000 + tonumber(now[2]))
redis.call('HSET', KEYS[1], 'offset', offset, 'entry', entry, 'number', '0', 'passed', '0', 'from', from,
  'owner', '', 'fence', '0', 'beat', '0', 'run', run,
  'moved', string.format('%.0f', tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000)))
redis.call('HSET', KEYS[2], 'group:' .. ARGV[2], '1')
-- A Redis consumer group of the same name shows the group to tools that know only those.
redis.pcall('XGROUP', 'CREATE', KEYS[3], ARGV[2], entry)
return {'OK', offset, entry, known}
