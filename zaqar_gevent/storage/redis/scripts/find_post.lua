-- Returns the ids of a post that was made before; nothing for none that is remembered.
-- KEYS: messages, topic, receipt, what keeps a token where the queue itself is on another server.
-- ARGV: queue ('': is on another server).
check_here(KEYS[1])
local found = call('GET', KEYS[3])
if not found then
    return false
end
local receipt = cmsgpack.unpack(found)
local keepers = ARGV[1] == '' and {KEYS[4]} or {ARGV[1], KEYS[2]}
for _, keeper in ipairs(keepers) do
    if call('HGET', keeper, 'g') == receipt[1] then
        return receipt[2]
    end
end
return false
