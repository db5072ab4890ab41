--@ core registered
-- Whether the member is registered.
return { mpack({}) }
