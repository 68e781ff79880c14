"""Push: connected clients are told of messages as they are posted, by whichever process.

What is in the queue is what counts: news of a post, from this process or over HTTP from another
one, only makes a `feed` read what follows the last message that it has read. So each subscriber
gets each message once and in the order of the queue, whatever becomes of the news, and can start
after any marker.

`tail` reads a queue from a marker on. `feed` is the one reader of a queue for all its subscribers
in this process, and `subscription` is one subscriber. `encoded` is a message as it is pushed.
`push_hub` knows them all. `workers` tells other processes about new messages, and `listener` is
told by them. A `consumer` is pushed messages to work on, each claimed for it.
"""
