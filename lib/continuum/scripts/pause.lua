#!lua flags=allow-oom
-- Stops or resumes the handling of one partition; its worker keeps the lease and sees it with its next renewal.
-- KEYS group   ARGV who and why for people; empty: resume   -> OK | NOGROUP
if redis.call('EXISTS', KEYS[1]) == 0 then return {'NOGROUP'} end
if ARGV[1] == '' then redis.call('HDEL', KEYS[1], 'paused') else redis.call('HSET', KEYS[1], 'paused', ARGV[1]) end
redis.call('HINCRBY', KEYS[1], 'requests', 1)
return {'OK'}
