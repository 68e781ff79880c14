"""Push: connected clients are told of messages as they are posted, by whichever process.

What is in the queue is what counts: news of a post, from this process or over HTTP from another
one, only makes a `feed` read what follows the last message that it has read. So each subscriber
gets each message once and in the order of the queue, whatever becomes of the news, and can start
after any marker.

`tail` reads a queue on, `feed` is the one reader of a queue for all its subscribers in this
process, `subscription` is one subscriber, `parcel` a message as it is pushed, `hub` knows them all,
`workers` tells other processes and `listener` is told by them. A `consumer` is pushed messages to
work on, each claimed for it.
"""
