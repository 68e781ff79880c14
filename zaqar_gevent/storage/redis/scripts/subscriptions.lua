-- Returns a page of subscriptions and, where it had to stop before it was full, where to go on.
-- KEYS: subscriptions. ARGV: where to begin, limit, subscriber to look for ('' for any), '1' if the queue
-- need not be used from here.
if ARGV[4] ~= '1' then
    check_here(KEYS[1], #'.subscriptions')
end
local CHUNK, MOST = 100, 500
local limit, after, page = tonumber(ARGV[2]), ARGV[1], {}
for _ = 1, MOST, CHUNK do
    local ids = call('ZRANGEBYLEX', KEYS[1], after, '+', 'LIMIT', 0, CHUNK)
    for _, id in ipairs(ids) do
        local one = call('HMGET', id, 's', 'u', 't', 'e', 'o', 'c')
        -- One without a subscriber has expired.
        if one[2] and (ARGV[3] == '' or ARGV[3] == one[2]) then
            page[#page + 1] = {id, one}
            if #page == limit then
                return {page, false}
            end
        end
    end
    if #ids < CHUNK then
        return {page, false}
    end
    after = '(' .. ids[#ids]
end
return {page, after}
