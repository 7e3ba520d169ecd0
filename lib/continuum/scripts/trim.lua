#!lua flags=allow-oom
-- Removes whole entries at the head of a log that every group has passed, as far as they were stored before a time or the
-- log is larger than it should be: one step of bounded length (PROTOCOLS: Groups).
-- KEYS log meta group…
-- ARGV 1 log id  2 before (ms; 0: none is too old)  3 bytes that the log may have (or nothing)  4 entries at most
--      5 bytes at most  6 recorded|any (whether the head must be where the last trim left it)
--      7 nodes that MEMORY USAGE looks at  8 when the settings were read that want this (ms; or nothing)
--      per group: name, "ENTRY RUN MOVED" at which it may be passed over (or nothing: never)
-- -> OK entries first-offset done|more|held group since | RETRY [group in meta …] | HEAD first-offset | OLD | NOLOG
local meta, known = {}, {}
local fields = redis.call('HGETALL', KEYS[2])
for i = 1, #fields, 2 do
  meta[fields[i]] = fields[i + 1]
  if string.sub(fields[i], 1, 6) == 'group:' then known[#known + 1] = string.sub(fields[i], 7) end
end
if meta['id'] ~= ARGV[1] then return {'NOLOG'} end
local before, entries_max, bytes_max = tonumber(ARGV[2]), tonumber(ARGV[4]), tonumber(ARGV[5])
if not (before and entries_max and bytes_max and (ARGV[3] == '' or tonumber(ARGV[3])) and (ARGV[8] == '' or tonumber(ARGV[8])))
  or #ARGV ~= 8 + 2 * (#KEYS - 2) then
  return redis.error_reply('ERR trim: bad argument')
end
-- By settings that were changed since nothing goes, however long the caller was stopped.
if ARGV[8] ~= '' then
  local now = redis.call('TIME')
  if tonumber(now[1]) * 1000 + tonumber(now[2]) / 1000 - tonumber(ARGV[8]) > 2000 then return {'OLD'} end
end
-- Whoever trims must know every group that is registered here, and no others.
local named = 0
for i = 9, #ARGV, 2 do
  if not meta['group:' .. ARGV[i]] then return {'RETRY', known} end
  named = named + 1
end
if named ~= #known then return {'RETRY', known} end

local function parts(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq)
end
local least_ms, least_seq, holder, moved
for i = 1, named do
  local h = redis.call('HMGET', KEYS[i + 2], 'entry', 'moved', 'run')
  -- One whose state is gone has passed nothing.
  local entry = h[1] or '0-0'
  -- A group that goes on, or was registered anew since somebody looked, is not what was looked at.
  if not h[1] or ARGV[8 + 2 * i] ~= entry .. ' ' .. (h[3] or '1') .. ' ' .. (h[2] or '0') then
    local ms, seq = parts(entry)
    if not least_ms or ms < least_ms or (ms == least_ms and seq < least_seq) then
      least_ms, least_seq, holder, moved = ms, seq, ARGV[7 + 2 * i], tonumber(h[2] or '0') or 0
    end
  end
end
local excess = 0
if ARGV[3] ~= '' then
  -- Not all of it at once: entries take more memory than they have bytes.
  excess = 0.8 * ((redis.call('MEMORY', 'USAGE', KEYS[1], 'SAMPLES', ARGV[7]) or 0) - tonumber(ARGV[3]))
end

local function size_of(values)
  local size = 0
  for i = 2, #values, 2 do size = size + #values[i] end
  return size
end
local function facts_of(values)
  local e = {}
  for i = 1, #values, 2 do
    if values[i] ~= 'e' and values[i] ~= 'z' then e[values[i]] = values[i + 1] end
  end
  return tonumber(e['o']), e['barrier'] and 0 or tonumber(e['n']), e['barrier'] or e['g']
end
-- Why the entry stays when so many bytes go before it, or nothing.
local function stays(id, bytes)
  local ms, seq = parts(id)
  if not (ms < before or bytes < excess) then return 'done' end
  if holder and (ms > least_ms or (ms == least_ms and seq > least_seq)) then return 'held', math.max(moved, ms) end
end

-- The generation in force before the entry: a barrier there is still to be passed.
local function before_of(values)
  local _, n, g = facts_of(values)
  return n == 0 and g and string.format('%.0f', math.max(tonumber(meta['trimmed'] or '0'), tonumber(g) - 1)) or g
end
local function id_before(id)
  local ms, seq = parts(id)
  if seq > 0 then return string.format('%.0f-%.0f', ms, seq - 1) end
  return string.format('%.0f-18446744073709551615', ms - 1)
end

-- One entry after the other: how large the next one is nobody knows, and what is read of it takes time. So a step costs
-- no more than its limits and one entry.
local trimmed_to = tonumber(meta['trimmed_offset'] or '0')
local removed, bytes, from = 0, 0, '-'
local why, since, last, after, generation, taken
while not why do
  local one = redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', 1)[1]
  if one and removed == 0 then
    local o = facts_of(one[2])
    if o and o > trimmed_to then
      if ARGV[6] ~= 'any' then return {'HEAD', string.format('%.0f', o)} end
      taken = {string.format('%.0f', o), id_before(one[1]), before_of(one[2])}
    end
  elseif removed == 0 and ARGV[6] == 'any' and tonumber(meta['next']) > trimmed_to and redis.call('EXISTS', KEYS[1]) == 1 then
    local info = redis.call('XINFO', 'STREAM', KEYS[1])
    for i = 1, #info, 2 do
      if info[i] == 'last-generated-id' then taken = {meta['next'], info[i + 1], meta['gen']} end
    end
  end
  if one then why, since = stays(one[1], bytes) else why = 'done' end
  if not why then
    local o, n, g = facts_of(one[2])
    if not (o and n and g) then
      -- Not an entry of ours: readers say so.
      why = 'done'
    else
      removed, last, after, generation = removed + 1, one[1], string.format('%.0f', o + n), g
      from, bytes = '(' .. last, bytes + size_of(one[2])
      if removed >= entries_max or bytes >= bytes_max then why = 'more' end
    end
  end
end
if why == 'done' and last and excess > 0 then why = 'more' end
local answer = {'OK', string.format('%.0f', removed), after or meta['trimmed_offset'] or '0', why}
if why == 'held' then
  answer[5], answer[6] = holder, string.format('%.0f', since)
end
if not last then
  -- The log is as it should be from now on, although nothing goes.
  if taken and taken[3] then
    redis.call('HSET', KEYS[2], 'trimmed', taken[3], 'trimmed_offset', taken[1], 'trimmed_entry', taken[2])
    answer[3] = taken[1]
  end
  return answer
end
local ms, seq = string.match(last, '^(%d+)-(%d+)$')
redis.call('XTRIM', KEYS[1], 'MINID', ms .. '-' .. string.format('%.0f', tonumber(seq) + 1))
redis.call('HSET', KEYS[2], 'trimmed', generation, 'trimmed_offset', after, 'trimmed_entry', last)
return answer
