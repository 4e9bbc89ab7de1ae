-- batch: several notifications in one call, in their order.

-- The bodies of a call: one, or several as netstrings.
local function bodies_of(kept, data)
  if kept ~= 'bodies' then return { data } end
  local bodies, at = {}, 1
  while at <= #data do
    local colon = string.find(data, ':', at, true)
    local last = colon + tonumber(string.sub(data, at, colon - 1))
    bodies[#bodies + 1] = string.sub(data, colon + 1, last)
    at = last + 1
  end
  return bodies
end

-- The words, alike ones that follow each other counted: 62 OK 2 LOST.
local function runs_of(words)
  local runs, many = {}, 0
  for i, word in ipairs(words) do
    many = many + 1
    if word ~= words[i + 1] then
      runs[#runs + 1] = many .. ' ' .. word
      many = 0
    end
  end
  return table.concat(runs, ' ')
end
