-- The keys of a queue and a project, and how bytes are counted. PERF: a script makes each of its functions
-- anew whenever it runs, so a post has no others than these.

local call = redis.call

-- Delayed messages are in a set of their own, by when they are due, and get their ranks then. The
-- keys are those of the corrected driver of upstream, see redis_delays.py. A second set, which is our
-- own, has them by the ranks that they would have without their delay.
local LATER = '.delayed'

local function by_posting(messages)
    return string.sub(messages, 1, -10) .. ':delayed'
end

-- The id of a delayed message does not tell its place, which is not known yet. Of those that are due at one
-- time, the first that was posted has the lowest id, so that Redis has them in this order.
-- start: what the ids of other messages begin with. number: its place without the delay.
local function unplaced_id(start, number)
    local digest, first, second, third = string.match(start, '^(%x+)%-(%x+)%-8(%x+)%-a(%x+)%-$')
    local digits = string.sub(string.format('%010x', number), -10)
    return table.concat({digest, string.sub(digits, 1, 4), '8' .. string.sub(digits, 5, 7),
        'b' .. string.sub(digits, 8), first .. second .. third .. '00'}, '-')
end

-- The beginning of the keys of a project: of its messages, of what is left of them, or of its
-- subscriptions.
local function project_of(key)
    if string.find(key, ':messages:', 1, true) then
        return string.match(key, '^(.*)%.[^.:]*:messages:')
    end
    return string.match(key, '^(.*)%.[^.]*%.[^.]*$')
end

-- Where the bytes of a project are counted, all of them as `t` and those of each second in which some
-- expire; and these seconds, by themselves. A second that is over is not there any more once somebody
-- has asked for the bytes.
local function account_of(messages)
    local project = project_of(messages)
    return project .. '.:bytes', project .. '.:bytes_ends'
end

-- Counts bytes that expire at a second.
local function add_bytes(messages, expires, bytes)
    local account, ends = account_of(messages)
    expires = string.format('%.0f', expires)
    call('HINCRBY', account, 't', bytes)
    call('HINCRBY', account, expires, bytes)
    call('ZADD', ends, expires, expires)
end

-- Fails, before anything has been written, if a queue is not used from this server: it is being moved to
-- another pool, or has left. The mark says its project, its name and more, see storage/moves.py.
-- key: of its messages, or another one that ends with so many letters.
local function check_here(key, suffix)
    local mark = call('GET', string.sub(key, 1, -1 - (suffix or #'.messages')) .. ':mark')
    if mark then
        error('ZMOVED ' .. mark, 0)
    end
end

