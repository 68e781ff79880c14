-- Changes the mark of a queue that leaves. Returns 1; 0 where it has not that state by this migration.
-- KEYS: mark. ARGV: the state that it must have, the migration, the new mark, seconds that it stays (0: for ever).
local found = call('GET', KEYS[1])
local mark = found and cjson.decode(found)[3]
if not mark or mark.state ~= ARGV[1] or mark.move ~= ARGV[2] then
    return 0
end
call('SET', KEYS[1], ARGV[3])
if ARGV[4] ~= '0' then
    call('EXPIRE', KEYS[1], ARGV[4])
end
return 1
