-- In how many partitions a queue is. ARGV: how many the caller has, or nothing where it only asks. Answers what is noted,
-- which is the number that was given first; false for none.
if ARGV[1] ~= '' then
  redis.call('HSETNX', k_partitions, 'count', ARGV[1])
end
return redis.call('HGET', k_partitions, 'count')
