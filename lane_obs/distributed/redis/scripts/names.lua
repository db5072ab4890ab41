--@ core
-- The codes of all lanes by name.
return { mpack({ epoch, call('HGETALL', k_names) }) }
