-- The member must be registered.
if not call('ZSCORE', k_members, me) then
  return 1
end
