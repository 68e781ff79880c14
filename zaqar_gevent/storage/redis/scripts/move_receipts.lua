-- Keeps what posts were answered before their queue came. KEYS: where. ARGV: until when, and of each post
-- the digest of its id and the answer.
for at = 2, #ARGV, 2 do
    call('HSET', KEYS[1], ARGV[at], ARGV[at + 1])
end
call('EXPIREAT', KEYS[1], ARGV[1])
return 1
