"""The purge of a queue that upstream's driver keeps in Redis."""

from __future__ import annotations

from typing import Any

import redis
from oslo_utils import timeutils
from zaqar.storage import errors
from zaqar.storage.redis import utils

from zaqar_gevent.storage import redis_delays

# Upstream ranks messages as they were posted: KEYS[1] is a queue's sorted set of ids. ARGV: now,
# the ranks to look at (after, up to), and how many. Returns the last rank that was looked at, or
# false at the end.
_STEP = """
local now = tonumber(ARGV[1])
local found = redis.call(
    'ZRANGEBYSCORE', KEYS[1], '(' .. ARGV[2], ARGV[3], 'WITHSCORES', 'LIMIT', 0, ARGV[4])
for index = 1, #found, 2 do
    local claim = redis.call('HMGET', found[index], 'c', 'c.e')
    local is_claimed = claim[1] and claim[1] ~= '' and tonumber(claim[2]) > now
    if not is_claimed then
        redis.call('DEL', found[index])
        redis.call('ZREM', KEYS[1], found[index])
    end
end
return #found > 0 and found[#found]
"""


def purge(driver: Any, queue: str, project: str | None, step: int) -> None:
    """Remove the messages that are there now and not claimed; looks at `step` messages at a time.

    Raises `zaqar.storage.errors.ConnectionError`.
    """
    client = driver.connection
    key = utils.msgset_key(queue, project)
    purge_some = client.register_script(_STEP)
    try:
        _purge_delayed(client, key, step)
        newest = client.zrevrange(key, 0, 0, withscores=True)
        looked_at = '-inf'
        while newest and looked_at:
            now = timeutils.utcnow_ts()
            looked_at = purge_some(keys=[key], args=[now, looked_at, newest[0][1], step])
    except redis.RedisError as error:
        raise errors.ConnectionError(error) from error


def _purge_delayed(client: Any, key: str, step: int) -> None:
    """Remove what is delayed now; what becomes due meanwhile has a place, and is found there."""
    delayed = redis_delays.of_set(key)
    ids = client.zrange(delayed, 0, -1)
    for begin in range(0, len(ids), step):
        some = ids[begin : begin + step]
        with client.pipeline() as pipe:
            for one in some:
                pipe.zscore(delayed, one)
            pipe.zrem(delayed, *some)
            scores = pipe.execute()[:-1]
        left = [one for one, score in zip(some, scores, strict=True) if score is not None]
        if left:
            client.delete(*left)
