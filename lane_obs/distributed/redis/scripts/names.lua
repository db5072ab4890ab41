--@ core
-- The codes of all lanes by name.
return { mpack({ Q.epoch, call('HGETALL', k_names) }) }
