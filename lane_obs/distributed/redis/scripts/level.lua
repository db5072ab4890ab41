-- Boosts: the level of a command in its lane.
local function set_level(_, _) end

-- Works out the level of a lane anew.
local function relevel(l)
  l.level = l.priority
end
