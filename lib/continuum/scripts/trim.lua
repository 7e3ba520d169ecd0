#!lua flags=allow-oom
-- Removes whole entries at the head of a log that every group has passed, as far as they were stored before a time or the
-- log is larger than it should be: one step of bounded length (PROTOCOLS: Groups).
-- KEYS log meta group…
-- ARGV 1 log id  2 before (ms; 0: none is too old)  3 bytes that the log may have (or nothing)  4 entries at most
--      5 bytes at most  6 recorded|any (whether the head must be where the last trim left it)
--      per group: name, entry at which it may be passed over (or nothing: never)
-- -> OK entries first-offset done|more|held group since | RETRY [group in meta …] | HEAD first-offset | NOLOG
local meta, known = {}, {}
local fields = redis.call('HGETALL', KEYS[2])
for i = 1, #fields, 2 do
  meta[fields[i]] = fields[i + 1]
  if string.sub(fields[i], 1, 6) == 'group:' then known[#known + 1] = string.sub(fields[i], 7) end
end
if meta['id'] ~= ARGV[1] then return {'NOLOG'} end
local before, entries_max, bytes_max = tonumber(ARGV[2]), tonumber(ARGV[4]), tonumber(ARGV[5])
if not (before and entries_max and bytes_max and (ARGV[3] == '' or tonumber(ARGV[3])))
  or #ARGV ~= 6 + 2 * (#KEYS - 2) then
  return redis.error_reply('ERR trim: bad argument')
end
-- Whoever trims must know every group that is registered here, and no others.
local named = 0
for i = 7, #ARGV, 2 do
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
  local h = redis.call('HMGET', KEYS[i + 2], 'entry', 'moved')
  -- One whose state is gone has passed nothing.
  local entry = h[1] or '0-0'
  if ARGV[6 + 2 * i] == '' or ARGV[6 + 2 * i] ~= entry then
    local ms, seq = parts(entry)
    if not least_ms or ms < least_ms or (ms == least_ms and seq < least_seq) then
      least_ms, least_seq, holder, moved = ms, seq, ARGV[5 + 2 * i], tonumber(h[2] or '0') or 0
    end
  end
end
local excess = 0
if ARGV[3] ~= '' then
  -- Not all of it at once: entries take more memory than they have bytes.
  excess = 0.8 * ((redis.call('MEMORY', 'USAGE', KEYS[1], 'SAMPLES', '1000') or 0) - tonumber(ARGV[3]))
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

-- Looks at entries until one stays: ids and sizes only rise, so that of many that go only the last is looked at.
local removed, bytes, from, count = 0, 0, '-', 1
local why, since, last, after, generation
while not why do
  local some = redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', count)
  local take = #some
  if take > 0 then
    if removed == 0 and ARGV[6] ~= 'any' then
      local o = facts_of(some[1][2])
      if o and o > tonumber(meta['trimmed_offset'] or '0') then return {'HEAD', string.format('%.0f', o)} end
    end
    local all = bytes + take * size_of(some[take][2])
    if not stays(some[take][1], all) then
      bytes = all
    else
      take = 0
      for i = 1, #some do
        why, since = stays(some[i][1], bytes)
        if why then break end
        bytes, take = bytes + size_of(some[i][2]), i
      end
    end
  end
  if take > 0 then
    local o, n, g = facts_of(some[take][2])
    if not (o and n and g) then
      -- Not an entry of ours: readers say so.
      why = 'done'
    else
      removed, last, after, generation = removed + take, some[take][1], string.format('%.0f', o + n), g
      from = '(' .. last
    end
  end
  if not why and #some < count then why = 'done' end
  if not why and (removed >= entries_max or bytes >= bytes_max) then why = 'more' end
  if not why then
    -- A frame may be large: not many more than the step has room for.
    local room = math.floor((bytes_max - bytes) / (bytes / removed + 1))
    count = math.max(1, math.min(2 * count, 50, entries_max - removed, room))
  end
end
if why == 'done' and last and excess > 0 then why = 'more' end
local answer = {'OK', string.format('%.0f', removed), after or meta['trimmed_offset'] or '0', why}
if why == 'held' then
  answer[5], answer[6] = holder, string.format('%.0f', since)
end
if not last then return answer end
local ms, seq = string.match(last, '^(%d+)-(%d+)$')
redis.call('XTRIM', KEYS[1], 'MINID', ms .. '-' .. string.format('%.0f', tonumber(seq) + 1))
redis.call('HSET', KEYS[2], 'trimmed', generation, 'trimmed_offset', after, 'trimmed_entry', last)
return answer
