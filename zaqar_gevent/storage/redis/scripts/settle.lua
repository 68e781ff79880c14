-- Settles single messages of claims. Returns for each 0, or why not: 1 a claim holds it, 2 the claim
-- does not hold it.
-- KEYS: messages, claims, head, messages and rank counter of the dead letter queue, names of queues and of
-- topics ('' where those are on another server).
-- ARGV: now, exact time, queue, TTL of dead letters ('': theirs), start of their ids, time in ISO 8601,
-- and of each message what to do (delete, release, reject, extend), id, claim ('': none), delay in
-- seconds ('': that of the queue), reason behind '=' ('': none), TTL and grace of the lease.
check_here(KEYS[1])
check_here(KEYS[4])
local FIELDS = 7
local now, exactly = tonumber(ARGV[1]), tonumber(ARGV[2])
local outcomes = {}

local function extend(id, m, claim, ttl, grace)
    local expires = now + ttl
    touch(KEYS[1], {id})
    local retry = retry_of(m)
    call('HSET', id, 'c.e', expires, 'd', retry > 0 and expires + retry or 0)
    if tonumber(m[EXPIRES]) < expires + grace then
        set_expiry(KEYS[1], id, ttl + grace, expires + grace)
    end
    if call('TTL', id) < expires + grace - now then
        call('EXPIRE', id, expires + grace - now)
    end
    call('HSET', id, 'l', expires .. ' ' .. ttl)
    -- The claim has to be known for as long as the longest of its leases.
    if tonumber(call('ZSCORE', KEYS[2], claim)) < expires then
        call('ZADD', KEYS[2], expires, claim)
        call('EXPIREAT', claim, expires)
        call('EXPIREAT', 'messages.' .. claim, expires)
    end
end

for at = 7, #ARGV, FIELDS do
    local kind, id, claim, delay, reason, ttl, grace = unpack(ARGV, at, at + FIELDS - 1)
    local m = glance(id)
    local is_there = belongs(KEYS[1], id) and not has_expired(m, now)
    local held_by = is_there and holder(m, now) or ''
    local outcome = 0
    if kind == 'delete' and not is_there then
        outcome = 0
    elseif kind == 'delete' and claim == '' and held_by ~= '' then
        outcome = 1
    elseif held_by ~= claim or claim == '' and kind ~= 'delete' then
        -- A message that no claim holds is free, not held by a claim without an id.
        outcome = 2
    elseif kind == 'delete' then
        remove(KEYS[1], id, claim)
    elseif kind == 'release' then
        release(KEYS[1], id, m, now, exactly, delay)
        call('LREM', 'messages.' .. claim, 1, id)
        call('HINCRBY', claim, 'n', -1)
    elseif kind == 'reject' then
        call('LREM', 'messages.' .. claim, 1, id)
        call('HINCRBY', claim, 'n', -1)
        move_to_dead_letters(KEYS[1], KEYS[4], KEYS[5], {KEYS[6], KEYS[7]}, id, ARGV[5], now, ARGV[4],
            {queue = ARGV[3], at = ARGV[6], reason = reason ~= '' and string.sub(reason, 2) or nil})
    else
        extend(id, m, claim, tonumber(ttl), tonumber(grace))
    end
    outcomes[#outcomes + 1] = outcome
end
call('DEL', KEYS[3])
return outcomes
