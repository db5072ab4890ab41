-- The member must be registered. Whoever works renews its lease, too, where half of it is over.
local lease_ends = call('ZSCORE', k_members, me)
if not lease_ends then
  return 1
end
if request.lease and lease_ends - now < request.lease * 500 then
  call('ZADD', k_members, now + request.lease * 1000, me)
end
