-- Prepares a queue that comes from another pool. KEYS: how it is known, mark, rank counter. ARGV: their
-- values.
for index = 1, 3 do
    call('SET', KEYS[index], ARGV[index])
end
return 1
