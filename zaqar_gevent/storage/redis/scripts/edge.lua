-- Returns the first message of the queue, or with '-1' the last, claimed or not.
-- KEYS: messages. ARGV: now, '1' or '-1', exact time.
check_here(KEYS[1])
local now, start = tonumber(ARGV[1]), 0
place(KEYS[1], ARGV[3])
local command = ARGV[2] == '1' and 'ZRANGE' or 'ZREVRANGE'
while true do
    local ids = call(command, KEYS[1], start, start + 9)
    for _, id in ipairs(ids) do
        local m = read(id)
        if is_alive(m, now) then
            return paginate({present(id, m, now)})
        end
    end
    if #ids < 10 then
        return false
    end
    start = start + 10
end
