-- Closes a queue that is to leave, for so long. Returns 1; or why not: 2 another migration is at work, 3 a
-- redrive may move its messages.
-- KEYS: mark, redrives of its project that run. ARGV: the mark, milliseconds, queue.
local found = call('GET', KEYS[1])
local state = found and cjson.decode(found)[3].state
if state == 'closing' or state == 'moved' then
    return 2
end
for _, key in ipairs(call('SMEMBERS', KEYS[2])) do
    local redrive = call('HMGET', key, 'queue', 'target')
    if redrive[1] == ARGV[3] or redrive[2] == ARGV[3] then
        return 3
    end
end
call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
