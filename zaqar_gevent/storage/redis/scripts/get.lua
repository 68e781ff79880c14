-- Returns those of some messages that are in the queue. KEYS: messages. ARGV: now, ids.
check_here(KEYS[1])
local now, found = tonumber(ARGV[1]), {}
for index = 2, #ARGV do
    local id = ARGV[index]
    if belongs(KEYS[1], id) then
        local m = read(id)
        if is_alive(m, now) then
            found[#found + 1] = present(id, m, now)
        end
    end
end
return paginate(found)
