-- Definitions that scripts share, see script_linker.py. Messages are hashes in upstream's format:
-- id, t (TTL), cr (created), e (expires), u (client), c (claim, '' for none), c.e (claim expires),
-- c.c (claim count), d (delayed until, with fractions for retries), b (body, MsgPack), cs (checksum).
-- Times are whole seconds.
-- Of our own: s (how the body was spelled, see bodies.py), x (what upstream's messages do not have: a
-- map in MsgPack), z (as how many bytes it is counted for its project; see usage.py), l (when its last
-- lease of its own ends, and the TTL of that: 'EXPIRES TTL').

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

local B, TTL, CREATED, CLAIM, CLAIM_EXPIRES, COUNT, CHECKSUM, EXPIRES, DELAYED, SPELLING, EXTRAS,
    CLIENT = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12

local function read(id)
    return call('HMGET', id, 'b', 't', 'cr', 'c', 'c.e', 'c.c', 'cs', 'e', 'd', 's', 'x')
end

-- The same with the client.
local function read_with_client(id)
    return call('HMGET', id, 'b', 't', 'cr', 'c', 'c.e', 'c.c', 'cs', 'e', 'd', 's', 'x', 'u')
end

-- The same without what may be long.
local function glance(id)
    local m = call('HMGET', id, 'e', 'c', 'c.e', 'd', 'u')
    return {nil, nil, nil, m[2], m[3], nil, nil, m[1], m[4], nil, nil, m[5]}
end

-- Whether there is a message; a hash without a body is what upstream has left of one.
local function is_alive(m, now)
    return m[B] and m[EXPIRES] and tonumber(m[EXPIRES]) > now
end

local function has_expired(m, now)
    return not m[EXPIRES] or tonumber(m[EXPIRES]) <= now
end

-- The claim that holds a message now; '' for none.
local function holder(m, now)
    if m[CLAIM] and m[CLAIM] ~= '' and tonumber(m[CLAIM_EXPIRES]) > now then
        return m[CLAIM]
    end
    return ''
end

-- Whether a message waits for its delay, its first one or that of a retry. While a claim holds it, d
-- says until when it will wait if the claim expires.
-- exactly: the time with fractions.
local function is_delayed(m, exactly)
    return (tonumber(m[DELAYED]) or 0) > exactly and holder(m, exactly) == ''
end

-- The delay before the retry of a message that a claim holds, in seconds.
local function retry_of(m)
    return math.max(0, (tonumber(m[DELAYED]) or 0) - (tonumber(m[CLAIM_EXPIRES]) or 0))
end

-- A queue with ordered or fair groups has a grouping: a hash with m (mode: 1 ordered, 2 fair, 3 both, '-':
-- of no use any more; behind GROUPS_FORMAT), t (a token, which its other keys have in their names), r (the
-- rank up to which claims have come by) and n (the last turn that was given). Its keys:
-- leases, messages that are held, or wait for a retry, as 'ID GROUP', until when;
-- counts, how many of them each group has (where groups are ordered, and but for messages without one);
-- free:GROUP, ids of registered messages by rank;
-- ready, the groups that have some, by the rank of the first one, or by their turns; where these have turns,
-- some of them may be held;
-- parked, the other groups that have some, which are held.
-- In an ordered queue, claims register only the messages that they pass over, and those that come back; in
-- a fair one, all messages. Whatever frees a message, or removes it, has it looked at by the next claim. What
-- is gone is found there, too. Messages without a group have the group ''. See take_groups.lua.
local GROUPS_FORMAT = '2.'

local function grouping_of(messages)
    return string.sub(messages, 1, -10) .. ':groups'
end

local function group_of(extras)
    -- This may also stand in a text.
    local at = extras and string.find(extras, '\165group', 1, true)
    if not at then
        return ''
    end
    -- PERF: as the driver packs them, the group comes last, and its name has less than 32 bytes. A text that
    -- ends with the above is followed by another one only where it is the name of an attribute.
    local size = string.byte(extras, at + 6) or 0
    if size >= 160 and size < 192 and #extras == at + size - 154
            and (at == 2 or string.sub(extras, 1, 12) == '\130\170attributes')
            and string.byte(extras) <= 130 then
        return string.sub(extras, at + 7)
    end
    return cmsgpack.unpack(extras).group or ''
end

-- The beginning of the keys of the grouping of a queue, and its mode; nothing where it has none.
local function group_keys(messages)
    local grouping = grouping_of(messages)
    local found = call('HMGET', grouping, 't', 'm')
    if found[1] then
        return grouping .. ':' .. found[1] .. ':', found[2]
    end
end

-- Counts one held message less for each of some groups, which may be there several times.
local function discount(prefix, groups)
    local left, gone, set = {}, {}, {}
    for index, count in ipairs(call('HMGET', prefix .. 'counts', unpack(groups))) do
        local group = groups[index]
        -- PERF: most groups have no other one.
        if count == '1' then
            gone[#gone + 1] = group
        elseif count then
            left[group] = (left[group] or tonumber(count)) - 1
        end
    end
    for group, count in pairs(left) do
        if count > 0 then
            set[#set + 1] = group
            set[#set + 1] = string.format('%d', count)
        else
            gone[#gone + 1] = group
        end
    end
    if #set > 0 then
        call('HSET', prefix .. 'counts', unpack(set))
    end
    if #gone > 0 then
        call('HDEL', prefix .. 'counts', unpack(gone))
    end
end

-- Has messages looked at again, as far as they are known to be held. extras: those of each message, where
-- they are known and all are deleted.
local function touch(messages, ids, extras)
    local prefix, mode = group_keys(messages)
    if not prefix then
        return
    end
    for start = 1, #ids, 1000 do
        local groups, members, scored = {}, {}, {}
        for index = start, math.min(start + 999, #ids) do
            local id = ids[index]
            local group = group_of(extras and extras[index] or not extras and call('HGET', id, 'x'))
            local member, number = id .. ' ' .. group, #members + 1
            groups[number], members[number] = group, member
            scored[2 * number - 1], scored[2 * number] = '-1', member
        end
        local changed = call('ZADD', prefix .. 'leases', 'XX', 'CH', unpack(scored))
        -- PERF: where all are gone and nothing waits for that, there is nothing to look at.
        if extras and changed == #members and call('EXISTS', prefix .. 'parked') == 0 then
            call('ZREM', prefix .. 'leases', unpack(members))
            if mode ~= GROUPS_FORMAT .. '2' then
                discount(prefix, groups)
            end
        end
    end
end

-- Whether the bytes of a project are counted, which all keys of a script belong to. PERF: where they
-- are not, it costs no more than this.
local is_counting
local function counts(messages)
    if is_counting == nil then
        is_counting = call('EXISTS', project_of(messages) .. '.:bytes') == 1
    end
    return is_counting
end

-- Counts a message.
local function count_bytes(messages, id, expires)
    local bytes = call('HSTRLEN', id, 'b') + call('HSTRLEN', id, 's') + call('HSTRLEN', id, 'x')
    call('HSET', id, 'z', bytes)
    add_bytes(messages, expires, bytes)
end

-- Counts messages no more, which are removed or expire at another time. Returns the bytes of the last
-- one; nothing where it was not counted.
local function uncount(messages, ids)
    local account, ends = account_of(messages)
    local bytes
    for _, id in ipairs(ids) do
        local found = call('HMGET', id, 'e', 'z')
        bytes = found[2]
        if bytes and call('HEXISTS', account, found[1]) == 1 then
            call('HINCRBY', account, 't', -bytes)
            if call('HINCRBY', account, found[1], -bytes) == 0 then
                call('HDEL', account, found[1])
                call('ZREM', ends, found[1])
            end
        end
    end
    return bytes
end

-- Lets a message expire at another time.
local function set_expiry(messages, id, ttl, expires)
    local bytes = counts(messages) and uncount(messages, {id})
    call('HSET', id, 't', ttl, 'e', string.format('%.0f', expires))
    if bytes then
        add_bytes(messages, expires, bytes)
    end
end

-- The subscriptions of a project, by when they expire. subscriptions: those of a queue.
local function subscriptions_of(subscriptions)
    return project_of(subscriptions) .. '.:subscriptions'
end

local function count_subscription(subscriptions, id)
    local expires = call('HGET', id, 'e')
    if expires then
        call('ZADD', subscriptions_of(subscriptions), expires, id)
    end
end

-- Gives back a message that a claim holds; returns its delay in seconds. delay: '' for that of its queue.
local function release(messages, id, m, now, exactly, delay)
    local seconds = delay == '' and retry_of(m) or tonumber(delay)
    local due = seconds > 0 and string.format('%.3f', exactly + seconds) or 0
    touch(messages, {id})
    call('HSET', id, 'c', '', 'c.e', now, 'd', due)
    return seconds
end

-- Creates a queue or topic. Returns whether there was none.
-- names: the key of all of them. key: its own. member: of the names. metadata: in MsgPack. index: the key
-- that names the messages of all queues.
local function create_queue(names, key, member, metadata, now, index, messages)
    if call('ZADD', names, 'NX', 1, member) == 0 then
        return false
    end
    for field, value in pairs({c = 0, cl = 0, m = metadata, t = now}) do
        call('HSETNX', key, field, value)
    end
    call('ZADD', index, 1, messages)
    return true
end

-- Moves a message to a dead letter queue, which is created unless it, or a topic, exists; returns the rank
-- that it had.
-- names: the keys of the names of queues and of topics; '' where those are on another server. start: of its
-- new id. ttl: '' for its own. facts: where it is from; nothing to leave them out.
local function move_to_dead_letters(messages, dead_letters, counter, names, id, start, now, ttl, facts)
    local queue = string.sub(dead_letters, 1, -10)
    if names[1] ~= '' and not call('ZSCORE', names[2], queue) then
        create_queue(names[1], queue, queue, '\128', now, 'msgset_index', dead_letters)
    end
    local had = call('ZSCORE', messages, id)
    local rank = call('INCRBY', counter, 1) - 1
    touch(messages, {id})
    local buried = start .. string.format('%012x', rank)
    if facts then
        local found = call('HMGET', id, 'x', 'c.c', 't')
        local extras = found[1] and cmsgpack.unpack(found[1]) or {}
        facts.message_id, facts.claim_count = id, tonumber(found[2]) or 0
        facts.ttl = tonumber(found[3])
        extras.dead_letter = facts
        call('HSET', id, 'x', cmsgpack.pack(extras))
    end
    call('RENAME', id, buried)
    call('HSET', buried, 'id', buried, 'c', '', 'c.e', now, 'd', 0)
    if ttl ~= '' then
        set_expiry(dead_letters, buried, ttl, now + tonumber(ttl))
        call('EXPIRE', buried, ttl)
    end
    call('ZREM', messages, id)
    call('ZADD', dead_letters, rank, buried)
    return had
end

-- Bytes in MsgPack.
local function pack_bytes(bytes)
    local size = #bytes
    if size < 256 then
        return '\196' .. string.char(size) .. bytes
    elseif size < 65536 then
        return '\197' .. string.char(math.floor(size / 256), size % 256) .. bytes
    end
    return '\198' .. string.char(math.floor(size / 16777216), math.floor(size / 65536) % 256,
        math.floor(size / 256) % 256, size % 256) .. bytes
end

-- PERF: what a message has in common with the one before it is packed once.
local common = {}

-- A message as the rest of the server wants it, as a map in MsgPack. PERF: the body is in MsgPack
-- already; so a page is one string, which the driver unpacks at once.
local function present(id, m, now)
    local created, ttl, count, claim = m[CREATED], m[TTL], m[COUNT] or 0, holder(m, now)
    local kind, body = 'body', m[B]
    if m[SPELLING] then
        kind, body = 'spelling', pack_bytes(m[SPELLING])
    end
    if created ~= common.created or ttl ~= common.ttl or kind ~= common.kind then
        local age = math.max(0, now - tonumber(created))
        common.head = cmsgpack.pack('age', age, 'ttl', tonumber(ttl), kind)
        common.created, common.ttl, common.kind = created, ttl, kind
    end
    if count ~= common.count or claim ~= common.claim then
        common.tail = cmsgpack.pack(
            'claim_count', tonumber(count), 'claim_id', claim ~= '' and claim or nil)
        common.count, common.claim = count, claim
    end
    local members, head, tail = 6, common.head, common.tail
    if m[CHECKSUM] then
        members, tail = members + 1, cmsgpack.pack('checksum', m[CHECKSUM]) .. tail
    end
    -- A map, whose first key is 'id' and whose first value is a text of less than 256 bytes.
    if m[EXTRAS] then
        return string.char(129 + members) .. '\162id\217' .. string.char(#id) .. id .. head .. body
            .. '\166extras' .. m[EXTRAS] .. tail
    end
    return string.char(128 + members) .. '\162id\217' .. string.char(#id) .. id .. head .. body .. tail
end

-- A message as it is stored: its id, and the fields that `read` reads.
local function fields_of(id, m)
    return {id, unpack(m, 1, 11)}
end

-- Messages that were presented as an array in MsgPack.
local function paginate(messages)
    local count = #messages
    local head
    if count < 16 then
        head = string.char(144 + count)
    elseif count < 65536 then
        head = string.char(220, math.floor(count / 256), count % 256)
    else
        head = string.char(221, 0, math.floor(count / 65536), math.floor(count / 256) % 256,
            count % 256)
    end
    return head .. table.concat(messages)
end

-- The head of a queue is where its first free message may be. It is remembered as
-- "BOUND ENDS DELAYED CLAIMS CHECKED PASSED": as ZRANGEBYSCORE takes it; until when it holds, since a
-- claim on a message before it expires then; whether delayed messages are before it; how many claims
-- expire at ENDS or later; when the messages before it were looked at, and how many were held.
--
-- Upstream's servers do not tell when they make messages free, but they remove the claim from the
-- queue's claims or change when it expires, so the number of claims is not the same any more. Only
-- when such a server has made and ended as many claims in between, it is; so everything is looked at
-- again in the next second, or later where that costs more, and the head is only remembered where
-- enough messages are held to be worth it. Whatever changes the claims writes the head anew or removes
-- it: it must not seem right again later.
local WORTH = 20

-- Where the head is: BOUND, ENDS, DELAYED, CHECKED, PASSED; nothing where that is not known.
-- claims: the key of the queue's claims, if upstream's servers work on it as well.
local function find_head(key, now, claims)
    local found = call('GET', key)
    if not found then
        return
    end
    local bound, ends, delayed, count, checked, passed =
        string.match(found, '^(%S+) (%d+) (%d) (%d+) (%d+) (%d+)$')
    if not bound or tonumber(ends) <= now then
        return
    end
    checked, passed = tonumber(checked), tonumber(passed)
    if claims and (now > checked + passed / 20000
            or call('ZCOUNT', claims, ends, '+inf') ~= tonumber(count)) then
        return
    end
    return bound, tonumber(ends), delayed == '1', checked, passed
end

local function keep_head(key, now, claims, bound, ends, delayed, checked, passed)
    ends = math.min(ends, now + 3600)
    if ends <= now then
        call('DEL', key)
        return
    end
    local count = claims and call('ZCOUNT', claims, ends, '+inf') or 0
    call('SET', key, string.format('%s %.0f %d %d %.0f %.0f', bound, ends, delayed and 1 or 0, count,
        checked, passed), 'EX', ends - now)
end

local function rank_of(bound)
    return tonumber(string.match(bound, '[^(]+'))
end

-- Gives places to some of the messages that are due by `exactly`.
local function place(messages, exactly)
    local due = call('ZRANGEBYSCORE', messages .. LATER, '-inf', exactly, 'LIMIT', '0', '100')
    if #due == 0 then
        return
    end
    local counter = string.sub(messages, 1, -9) .. 'rank_counter'
    for _, id in ipairs(due) do
        call('ZREM', messages .. LATER, id)
        if call('EXISTS', id) == 1 then
            call('ZADD', messages, call('INCRBY', counter, 1) - 1, id)
            call('HSET', id, 'd', 0)
        end
    end
    call('ZREM', by_posting(messages), unpack(due))
end

-- The ranks of messages; false for those that are not in the queue, or are delayed.
local function ranks_of(messages, ids)
    local ranks = {}
    for start = 1, #ids, 1000 do
        local last = math.min(start + 999, #ids)
        local some = redis.pcall('ZMSCORE', messages, unpack(ids, start, last))
        for index = start, last do
            if some.err then
                -- Redis before 6.2 does not know the command.
                ranks[index] = call('ZSCORE', messages, ids[index])
            else
                ranks[index] = some[index - start + 1]
            end
        end
    end
    return ranks
end

local function belongs(messages, id)
    return call('ZSCORE', messages, id) or call('ZSCORE', messages .. LATER, id)
end

-- Takes messages out of their queue.
-- extras: those of each, if they are known (false for none).
local function take_out(messages, ids, extras)
    touch(messages, ids, extras)
    if counts(messages) then
        uncount(messages, ids)
    end
    for index = 1, #ids, 1000 do
        local last = math.min(index + 999, #ids)
        call('DEL', unpack(ids, index, last))
        if call('ZREM', messages, unpack(ids, index, last)) <= last - index then
            call('ZREM', messages .. LATER, unpack(ids, index, last))
            call('ZREM', by_posting(messages), unpack(ids, index, last))
        end
    end
end

-- Takes a message out of its queue, and out of the claim that holds it.
local function remove(messages, id, claim)
    take_out(messages, {id})
    if claim ~= '' and call('LREM', 'messages.' .. claim, 1, id) > 0
            and call('EXISTS', claim) == 1 then
        call('HINCRBY', claim, 'n', -1)
    end
end

-- What leases messages to a claim: a function of an id and its message.
-- retry: the delay before a retry, the first, the factor, the longest; '' for none.
local function holding(messages, claim, now, ttl, grace, retry)
    local claim_expires = now + ttl
    -- PERF: a number is made a text each time it is given to a command.
    local claim_expires_text = string.format('%.0f', claim_expires)
    local first, factor, longest = tonumber(retry[1]), tonumber(retry[2]), tonumber(retry[3])
    local texts = {}
    return function(id, m)
        local count = (tonumber(m[COUNT]) or 0) + 1
        if tonumber(m[EXPIRES]) < claim_expires + grace then
            m[TTL] = ttl + grace
            set_expiry(messages, id, m[TTL], claim_expires + grace)
            call('EXPIRE', id, m[TTL])
        end
        texts[count] = texts[count] or string.format('%.0f', count)
        call('HSET', id, 'c', claim, 'c.e', claim_expires_text, 'c.c', texts[count])
        if first then
            local delay = math.min(longest, first * factor ^ (count - 1))
            call('HSET', id, 'd', string.format('%.3f', claim_expires + delay))
        end
        m[CLAIM], m[CLAIM_EXPIRES], m[COUNT] = claim, claim_expires, count
    end
end

-- Notes the messages of a new claim.
local function keep_claim(claims, claim, ids, now, ttl)
    local list, expires = 'messages.' .. claim, string.format('%.0f', now + ttl)
    local seconds = string.format('%.0f', ttl)
    for index = 1, #ids, 1000 do
        call('RPUSH', list, unpack(ids, index, math.min(index + 999, #ids)))
    end
    call('EXPIRE', list, seconds)
    call('HSET', claim, 'id', claim, 't', seconds, 'e', expires, 'n', #ids)
    call('EXPIRE', claim, seconds)
    call('ZADD', claims, expires, claim)
    call('ZREMRANGEBYSCORE', claims, '-inf', now)
end

-- Takes ids without a message out of the ranks.
local function forget(messages, ids)
    for index = 1, #ids, 1000 do
        call('ZREM', messages, unpack(ids, index, math.min(index + 999, #ids)))
    end
end

-- Ends a redrive; it is remembered for `kept` seconds.
-- due: when steps are due. running: those of the project.
local function end_redrive(redrive, due, running, state, reason, exactly, kept)
    call('HSET', redrive, 'state', state, 'reason', reason, 'updated', exactly)
    call('EXPIRE', redrive, kept)
    call('ZREM', due, redrive)
    call('SREM', running, redrive)
end
