#!lua flags=allow-oom
-- Moves a group's cursor, with everything that must not disagree with it (PROTOCOLS: Commit, Held keys, Emit).
-- A commit that stores letters or outputs is sent as commit_grow: the same text without allow-oom.
-- KEYS group log dead held outbox
-- ARGV fence, number, offset, entry, passed generation, group, how many letters, how many steps, how many outputs,
--   topic of the outputs, import (=: as it is),
--   per letter: handler/key, offset (and the partition that it is of, when it is another one), state, attempts, milliseconds, reason, event
--   per step:   done|discard|failed|free|answered|asked, entry id of the letter, handler/key, text (failed: how;
--               free: how many letters stay; asked: what)
--   per output: how many events, events
-- -> OK | ALREADY | FENCED fence | CONFLICT number | NOGROUP
local h = redis.call('HMGET', KEYS[1], 'fence', 'number', 'owner', 'run', 'offset', 'entry')
if not h[1] then return {'NOGROUP'} end
if h[1] ~= ARGV[1] or h[3] == '' then return {'FENCED', h[1]} end
local number, stored = tonumber(ARGV[2]), tonumber(h[2])
local letters, steps, outputs = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
if not number or not tonumber(ARGV[3]) or not tonumber(ARGV[5]) or not letters or not steps or not outputs
  or #ARGV ~= 11 + 7 * letters + 4 * steps + 2 * outputs then
  return redis.error_reply('ERR commit: bad argument')
end
for i = #ARGV - 2 * outputs + 1, #ARGV, 2 do
  if (tonumber(ARGV[i]) or 0) < 1 then return redis.error_reply('ERR commit: bad argument') end
end
if number == stored then return {'ALREADY'} end
if number ~= stored + 1 then return {'CONFLICT', h[2]} end
redis.call('HSET', KEYS[1], 'number', ARGV[2], 'offset', ARGV[3], 'entry', ARGV[4], 'passed', ARGV[5])
if ARGV[11] ~= '=' then redis.call('HSET', KEYS[1], 'import', ARGV[11]) end
redis.call('HINCRBY', KEYS[1], 'beat', 1)
if h[5] ~= ARGV[3] or h[6] ~= ARGV[4] then
  local now = redis.call('TIME')
  redis.call('HSET', KEYS[1], 'moved', string.format('%.0f', tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000)))
end
local at = 11
for _ = 1, letters do
  local whose, state = ARGV[at + 1], ARGV[at + 3]
  local slash = string.find(whose, '/', 1, true)
  local offset, from = string.match(ARGV[at + 2], '^(%d+) ?(%d*)$')
  local fields = {'h', string.sub(whose, 1, slash - 1), 'k', string.sub(whose, slash + 1), 'o', offset, 's', state,
    'a', ARGV[at + 4], 't', ARGV[at + 5], 'r', ARGV[at + 6], 'e', ARGV[at + 7]}
  if from ~= '' then fields[#fields + 1], fields[#fields + 2] = 'p', from end
  redis.call('XADD', KEYS[3], '*', unpack(fields))
  redis.call('HINCRBY', KEYS[4], 'n/' .. whose, 1)
  redis.call('HINCRBY', KEYS[4], 'total', 1)
  if state ~= 'skipped' then redis.call('HSET', KEYS[4], 'h/' .. whose, '1') end
  at = at + 7
end
for _ = 1, steps do
  local what, id, whose, text = ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  if what == 'done' or what == 'discard' then
    -- One that somebody has removed by hand does not count twice.
    if redis.call('XDEL', KEYS[3], id) == 1 then
      redis.call('HINCRBY', KEYS[4], 'total', -1)
      if what == 'discard' then redis.call('HDEL', KEYS[4], 'x/' .. whose) end
      if redis.call('HINCRBY', KEYS[4], 'n/' .. whose, -1) <= 0 then redis.call('HDEL', KEYS[4], 'n/' .. whose) end
    end
  elseif what == 'failed' then
    redis.call('HSET', KEYS[4], 'x/' .. whose, text)
  elseif what == 'free' then
    redis.call('HDEL', KEYS[4], 'h/' .. whose, 'r/' .. whose)
    -- Those that somebody has removed by hand are counted no longer.
    local left = tonumber(text) or 0
    local gone = tonumber(redis.call('HGET', KEYS[4], 'n/' .. whose) or '0') - left
    if gone > 0 then
      redis.call('HINCRBY', KEYS[4], 'total', -gone)
      redis.call('HINCRBY', KEYS[4], 'n/' .. whose, -gone)
    end
    if left == 0 then redis.call('HDEL', KEYS[4], 'n/' .. whose, 'x/' .. whose) end
  elseif what == 'answered' then
    redis.call('HDEL', KEYS[4], 'r/' .. whose)
  elseif what == 'asked' then
    redis.call('HSET', KEYS[4], 'r/' .. whose, text)
  end
  at = at + 4
end
-- Every derived event has a number of its own: its position in the producer that forwards it.
for _ = 1, outputs do
  local last = redis.call('HINCRBY', KEYS[1], 'outbox', ARGV[at + 1])
  redis.call('XADD', KEYS[5], '*', 'n', string.format('%.0f', last - tonumber(ARGV[at + 1]) + 1), 'r', h[4] or '1',
    't', ARGV[10], 'e', ARGV[at + 2])
  at = at + 2
end
-- The consumer group is for the eyes of other tools: without it nothing is wrong.
redis.pcall('XGROUP', 'SETID', KEYS[2], ARGV[6], ARGV[4])
return {'OK'}
