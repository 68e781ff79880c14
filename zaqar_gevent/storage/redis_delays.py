"""Delayed messages of upstream's driver for Redis, which take their places when they are due.

Upstream ranks a message when it is posted, in the sorted set of its queue, so that a follower who
is past that rank misses a delayed one. Here delayed messages are in a set of their own, by the time
when they are due. Whoever lists or claims first moves what is due, in the same step.
"""

from __future__ import annotations

import time

from zaqar.storage.redis import messages as upstream_messages
from zaqar.storage.redis import queues as upstream_queues
from zaqar.storage.redis import utils

_SUFFIX = '.delayed'

PLACE = """
-- Gives places to some of the messages that are due by `now`, which is a text to be exact.
local function place(messages, delayed, counter, now)
    local due = redis.call('ZRANGEBYSCORE', delayed, '-inf', now, 'LIMIT', 0, 100)
    if #due == 0 then
        return
    end
    local rank = tonumber(redis.call('GET', counter) or 1)
    for _, id in ipairs(due) do
        redis.call('ZREM', delayed, id)
        if redis.call('EXISTS', id) == 1 then
            redis.call('ZADD', messages, rank, id)
            rank = rank + 1
        end
    end
    redis.call('SET', counter, rank)
end
"""
"""The beginning of the scripts that list and claim, in Lua."""


def delayed_key(queue: str, project: str | None) -> str:
    """The key of the set of a queue's delayed messages, by when they are due."""
    return of_set(utils.msgset_key(queue, project))


def of_set(messages_key: str) -> str:
    """The same, by the key of the set of the queue's messages."""
    return f'{messages_key}{_SUFFIX}'


def keys(messages_key: str) -> list[str]:
    """The first keys of such a script: messages, delayed messages, counter of ranks."""
    scope = messages_key.removesuffix(upstream_queues.MESSAGE_IDS_SUFFIX)
    counter = f'{scope}{upstream_messages.MESSAGE_RANK_COUNTER_SUFFIX}'
    return [messages_key, of_set(messages_key), counter]


def now() -> str:
    """The time as such a script takes it."""
    return repr(time.time())
