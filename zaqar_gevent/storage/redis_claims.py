"""Claims of upstream's driver for Redis, which count only messages that they hold.

A message can leave a claim without the claim's record: it expires, its queue is deleted, or it is
moved to the dead letter queue. So a claim is asked for its messages, and each message for its
claim, in one step.
"""

from __future__ import annotations

import copy
import functools
from typing import Any

from oslo_utils import timeutils
from zaqar.storage import errors
from zaqar.storage.redis import claims as upstream_claims
from zaqar.storage.redis import utils

from zaqar_gevent.storage import redis_delays

# Counts what some claims hold. KEYS: the queue's sorted sets of claims and of messages.
# ARGV: the ranks of the first and the last claim, and the prefix of the key of a claim's list of
# messages. Returns how many claims there were, and the count.
_COUNT = """
local count = 0
local claims = redis.call('ZRANGE', KEYS[1], ARGV[1], ARGV[2])
for _, claim in ipairs(claims) do
    for _, id in ipairs(redis.call('LRANGE', ARGV[3] .. '.' .. claim, 0, -1)) do
        if redis.call('HGET', id, 'c') == claim and redis.call('ZSCORE', KEYS[2], id) then
            count = count + 1
        end
    end
end
return {#claims, count}
"""

_CLAIMS_STEP = 50
"""Claims that one command looks at; Redis serves nobody else meanwhile."""

# Claims messages. KEYS: see `redis_delays`. ARGV: now, how many, the claim and its expiry, the TTL
# and expiry that the messages have at least, and the exact time. Returns their ids. Upstream's
# script looks at the first free message only, and takes what follows whether that is free or not.
_CLAIM = f"""{redis_delays.PLACE}
place(KEYS[1], KEYS[2], KEYS[3], ARGV[7])
local now, limit, expires = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[4])
local claimed, gone, first = {{}}, {{}}, 0
while #claimed < limit do
    local ids = redis.call('ZRANGE', KEYS[1], first, first + 99)
    if #ids == 0 then
        break
    end
    first = first + #ids
    for _, id in ipairs(ids) do
        local held = redis.call('HMGET', id, 'c', 'c.e', 'd', 'e')
        if not held[4] then
            gone[#gone + 1] = id
        elseif (held[1] == '' or tonumber(held[2]) <= now) and tonumber(held[3] or 0) <= now then
            redis.call('HMSET', id, 'c', ARGV[3], 'c.e', expires)
            if tonumber(held[4]) < tonumber(ARGV[6]) then
                redis.call('HMSET', id, 't', ARGV[5], 'e', ARGV[6])
                redis.call('EXPIREAT', id, ARGV[6])
            end
            claimed[#claimed + 1] = id
            if #claimed == limit then
                break
            end
        end
    end
end
for _, id in ipairs(gone) do
    redis.call('ZREM', KEYS[1], id)
end
return claimed
"""

# Extends a claim. KEYS: the queue's sorted set of claims, the claim, its list of messages. ARGV:
# the claim's TTL and expiry, and those that its messages have at least.
_RENEW = """
local expires = tonumber(ARGV[2])
for _, id in ipairs(redis.call('LRANGE', KEYS[3], 0, -1)) do
    local held = redis.call('HMGET', id, 'c', 'e')
    if held[1] == KEYS[2] then
        redis.call('HSET', id, 'c.e', expires)
        if tonumber(held[2]) < tonumber(ARGV[4]) then
            redis.call('HMSET', id, 't', ARGV[3], 'e', ARGV[4])
            redis.call('EXPIREAT', id, ARGV[4])
        end
    end
end
redis.call('HMSET', KEYS[2], 't', ARGV[1], 'e', expires)
redis.call('EXPIRE', KEYS[2], ARGV[1])
redis.call('EXPIRE', KEYS[3], ARGV[1])
redis.call('ZADD', KEYS[1], expires, KEYS[2])
"""

# Frees those of some messages that a claim holds. KEYS: the claim, its list of messages. ARGV: now,
# and the ids.
_RELEASE = """
for index = 2, #ARGV do
    if redis.call('HGET', ARGV[index], 'c') == KEYS[1] then
        redis.call('HMSET', ARGV[index], 'c', '', 'c.e', ARGV[1])
    end
    if redis.call('LREM', KEYS[2], 1, ARGV[index]) > 0 then
        redis.call('HINCRBY', KEYS[1], 'n', -1)
    end
end
"""


class Claims(upstream_claims.ClaimController):
    """Claims, which hold nothing that is gone or in the dead letter queue."""

    _taken: tuple[str, list[bytes]] | None = None

    @functools.cached_property
    def _own_scripts(self) -> dict[str, Any]:
        texts = {'claim': _CLAIM, 'count': _COUNT, 'renew': _RENEW, 'release': _RELEASE}
        return {name: self._client.register_script(text) for name, text in texts.items()}

    @utils.raises_conn_error
    def create(
        self, queue: str, metadata: dict[str, Any], project: str | None = None, limit: int = 10
    ) -> tuple[str | None, Any]:
        # Upstream does not tell the claim's id when it has moved all messages: a copy for this call
        # keeps it. What is made once has to be made before.
        _ = self._own_scripts
        call = copy.copy(self)
        claim_id, found = super(Claims, call).create(queue, metadata, project=project, limit=limit)
        messages = list(found)
        if call._taken:
            self._let_go(queue, project, call._taken, {message['id'] for message in messages})
        return claim_id, messages

    def _claim_messages(
        self, msgset_key: str, now: int, limit: int, claim_id: str, *times: int
    ) -> list[bytes]:
        ids: list[bytes] = self._own_scripts['claim'](
            keys=redis_delays.keys(msgset_key),
            args=[now, limit, claim_id, *times, redis_delays.now()],
        )
        self._taken = (claim_id, ids) if ids else None
        return ids

    def _let_go(
        self, queue: str, project: str | None, taken: tuple[str, list[bytes]], kept: set[str]
    ) -> None:
        """End the claim on messages that are in the dead letter queue by now."""
        claim_id, ids = taken
        moved = [one for one in ids if one.decode() not in kept]
        if not moved:
            return
        with self._client.pipeline() as pipe:
            self._release(claim_id, moved, pipe)
            if not kept:
                self._forget(queue, project, [claim_id], pipe)
            pipe.execute()

    def _exists(self, queue: str, claim_id: str | None, project: str | None) -> bool:
        if not claim_id or not self._queue_ctrl._exists(queue, project):
            return False
        expires = self._client.zscore(_claims_key(queue, project), claim_id)
        return expires is not None and bool(expires > timeutils.utcnow_ts())

    def _count_messages(self, queue: str, project: str | None) -> int:
        keys = [_claims_key(queue, project), utils.msgset_key(queue, project)]
        # Those before have expired.
        first = self._client.zcount(keys[0], '-inf', timeutils.utcnow_ts())
        total, looked_at = 0, _CLAIMS_STEP
        while looked_at == _CLAIMS_STEP:
            args = [first, first + _CLAIMS_STEP - 1, upstream_claims.CLAIM_MESSAGES_SUFFIX]
            looked_at, count = self._own_scripts['count'](keys=keys, args=args)
            total += count
            first += _CLAIMS_STEP
        return total

    @utils.raises_conn_error
    @utils.retries_on_connection_error
    def get(
        self, queue: str, claim_id: str, project: str | None = None
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        if not self._exists(queue, claim_id, project):
            raise errors.ClaimDoesNotExist(claim_id, queue, project)
        expires, ttl = self._client.hmget(claim_id, 'e', 't')
        if expires is None:
            raise errors.ClaimDoesNotExist(claim_id, queue, project)
        ids = [one.decode() for one in self._get_claimed_message_keys(_list_key(claim_id))]
        found = self.driver.message_controller._get_each(queue, ids, project)
        age = timeutils.utcnow_ts() - (int(expires) - int(ttl))
        held = [message for message in found if message['claim_id'] == claim_id]
        return {'age': age, 'ttl': int(ttl), 'id': claim_id}, held

    @utils.raises_conn_error
    @utils.retries_on_connection_error
    def update(
        self, queue: str, claim_id: str, metadata: dict[str, Any], project: str | None = None
    ) -> None:
        if not self._exists(queue, claim_id, project):
            raise errors.ClaimDoesNotExist(claim_id, queue, project)
        ttl, grace = metadata['ttl'], metadata['grace']
        expires = timeutils.utcnow_ts() + ttl
        self._own_scripts['renew'](
            keys=[_claims_key(queue, project), claim_id, _list_key(claim_id)],
            args=[ttl, expires, ttl + grace, expires + grace],
        )

    @utils.raises_conn_error
    @utils.retries_on_connection_error
    def delete(self, queue: str, claim_id: str | None, project: str | None = None) -> None:
        # A pop of messages that were all moved to the dead letter queue has no claim.
        if claim_id is None or not self._exists(queue, claim_id, project):
            return
        ids = self._get_claimed_message_keys(_list_key(claim_id))
        with self._client.pipeline() as pipe:
            self._release(claim_id, ids, pipe)
            self._forget(queue, project, [claim_id], pipe)
            pipe.execute()

    def _delete_queue_claims(self, queue: str, project: str | None, pipe: Any) -> None:
        """Forget the claims of a queue that is deleted."""
        key = _claims_key(queue, project)
        while claims := self._client.zrange(key, 0, _CLAIMS_STEP - 1):
            with self._client.pipeline() as step:
                self._forget(queue, project, [claim_id.decode() for claim_id in claims], step)
                step.execute()

    def _release(self, claim_id: str, ids: list[bytes], pipe: Any) -> None:
        now = timeutils.utcnow_ts()
        self._own_scripts['release'](
            keys=[claim_id, _list_key(claim_id)], args=[now, *ids], client=pipe
        )

    def _forget(self, queue: str, project: str | None, claim_ids: list[str], pipe: Any) -> None:
        for claim_id in claim_ids:
            pipe.zrem(_claims_key(queue, project), claim_id)
            pipe.delete(claim_id, _list_key(claim_id))


def _claims_key(queue: str, project: str | None) -> str:
    key: str = utils.scope_claims_set(queue, project, upstream_claims.QUEUE_CLAIMS_SUFFIX)
    return key


def _list_key(claim_id: str) -> str:
    key: str = utils.scope_claim_messages(claim_id, upstream_claims.CLAIM_MESSAGES_SUFFIX)
    return key
