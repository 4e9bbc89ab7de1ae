-- rights: masks without a bit library (the in-memory double has none).

local function has(mask, needed)
  mask, needed = tonumber(mask or 0), tonumber(needed)
  local bit = 1
  while bit <= needed do
    if math.floor(needed / bit) % 2 == 1 and math.floor(mask / bit) % 2 == 0 then return false end
    bit = bit * 2
  end
  return true
end

-- The mask with all bits of `given` set, or cleared.
local function change(mask, given, set)
  local bit, result = 1, 0
  while bit <= mask or bit <= given do
    local was, named = math.floor(mask / bit) % 2 == 1, math.floor(given / bit) % 2 == 1
    if named and set or was and not named then result = result + bit end
    bit = bit * 2
  end
  return result
end
