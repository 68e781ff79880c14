-- Deletes a record of the management store. KEYS: record, keys that name it. ARGV: member.
call('DEL', KEYS[1])
for index = 2, #KEYS do
    call('ZREM', KEYS[index], ARGV[1])
end
