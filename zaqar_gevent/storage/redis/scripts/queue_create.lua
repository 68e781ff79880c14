-- Creates a queue or topic. Returns whether there was none.
-- KEYS: names, queue, index of queues. ARGV: member of the names, metadata, now, key of the messages.
return create_queue(KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3], KEYS[3], ARGV[4]) and 1 or 0
