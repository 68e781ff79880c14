-- Takes the mark of a queue away. KEYS: mark. ARGV: the state that it must have, the migration ('' for any).
local found = call('GET', KEYS[1])
local mark = found and cjson.decode(found)[3]
if mark and mark.state == ARGV[1] and (ARGV[2] == '' or mark.move == ARGV[2]) then
    call('DEL', KEYS[1])
end
return 1
