-- Begins a redrive. Returns its number; or 'queue' or 'project', which has as many as may run.
-- KEYS: counter of redrives, when steps are due, redrives of the queue, running ones of the project,
-- rank counter of the queue.
-- ARGV: what the key of a redrive begins with, project, queue, exact time, target ('': where each is
-- from), limit ('': none), rate ('': none), most of the queue, most of the project, most that are
-- remembered of the queue.
check_here(KEYS[5], #'.rank_counter')
local running, over = 0, {}
for _, number in ipairs(call('ZRANGE', KEYS[3], 0, -1)) do
    local state = call('HGET', ARGV[1] .. number, 'state')
    if state == 'running' then
        running = running + 1
    elseif state then
        over[#over + 1] = number
    else
        call('ZREM', KEYS[3], number)
    end
end
if running >= tonumber(ARGV[8]) then
    return 'queue'
end
if call('SCARD', KEYS[4]) >= tonumber(ARGV[9]) then
    return 'project'
end
for index = 1, running + #over + 1 - tonumber(ARGV[10]) do
    call('DEL', ARGV[1] .. over[index])
    call('ZREM', KEYS[3], over[index])
end
local place = call('INCR', KEYS[1])
local number = string.format('%016x', place)
local key = ARGV[1] .. number
call('HSET', key, 'project', ARGV[2], 'queue', ARGV[3], 'number', number, 'target', ARGV[5],
    'remaining', ARGV[6], 'rate', ARGV[7], 'state', 'running', 'reason', '', 'moved', 0, 'left', 0,
    'after', '-inf', 'last', (tonumber(call('GET', KEYS[5])) or 0) - 1, 'created', ARGV[4],
    'updated', ARGV[4])
call('ZADD', KEYS[3], place, number)
call('ZADD', KEYS[2], ARGV[4], key)
call('SADD', KEYS[4], key)
return number
