-- Removes claims of a queue that has come, which were released or ended while their messages were
-- copied. Returns where to go on, or 0 at the end. KEYS: claims. ARGV: where to begin, how many to
-- look at.
local start, count = tonumber(ARGV[1]), tonumber(ARGV[2])
local found = call('ZRANGE', KEYS[1], start, start + count - 1)
local removed = 0
for _, claim in ipairs(found) do
    if call('LLEN', 'messages.' .. claim) == 0 then
        call('DEL', claim)
        call('ZREM', KEYS[1], claim)
        removed = removed + 1
    end
end
return #found < count and 0 or start + count - removed
