"""Upstream's driver for Redis, with ids that count only within queue and project.

Upstream finds a message by its id alone, which is its key in Redis. The ids of a queue are in a
sorted set of the queue, and here an id has to be in that set as well. That is asked for together
with what is read, so it costs no further round trip.
"""

from __future__ import annotations

import copy
import functools
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgpack
import redis
from oslo_utils import timeutils
from zaqar.storage import base, errors
from zaqar.storage.redis import messages as upstream_messages
from zaqar.storage.redis import queues as upstream_queues
from zaqar.storage.redis import utils
from zaqar.storage.redis.models import Message

from zaqar_gevent.storage import redis_delays
from zaqar_gevent.storage.redis_claims import Claims

Fields = dict[bytes, bytes]
Claim = tuple[bytes, bytes]
Filter = Callable[[Message, int], Any]

# Finds a place in a queue and reads the page there in one step, so that nothing is left out while
# others delete. KEYS: see `redis_delays`. ARGV: the marker (empty: from the start), how many, for a
# page without claimed messages the time now (otherwise empty), the score to search on from, how
# many messages to look at, the exact time, and whether delayed messages follow (otherwise empty).
# Returns the hashes of the messages, which are empty where a message has expired; or instead the
# score up to which only claimed ones were found.
_PAGE = f"""{redis_delays.PLACE}
place(KEYS[1], KEYS[2], KEYS[3], ARGV[6])
local limit, now = tonumber(ARGV[2]), tonumber(ARGV[3])
local start = 0

local function is_free(id)
    local claim = redis.call('HMGET', id, 'c', 'c.e')
    return claim[1] and (claim[1] == '' or tonumber(claim[2]) <= now)
end

local function with_delayed(page, first)
    if ARGV[7] ~= '' and #page < limit then
        local last = first + limit - #page - 1
        for _, id in ipairs(redis.call('ZRANGE', KEYS[2], first, last)) do
            page[#page + 1] = redis.call('HGETALL', id)
        end
    end
    return page
end

local delayed = ARGV[7] ~= '' and redis.call('ZRANK', KEYS[2], ARGV[1])
if delayed then
    return with_delayed({{}}, delayed + 1)
end
if ARGV[1] ~= '' then
    local rank = redis.call('ZRANK', KEYS[1], ARGV[1])
    if rank then
        start = rank + 1
    end
elseif now then
    local found = redis.call(
        'ZRANGEBYSCORE', KEYS[1], '(' .. ARGV[4], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[5])
    local first = nil
    for index = 1, #found, 2 do
        if is_free(found[index]) then
            first = found[index]
            break
        end
    end
    if not first then
        return found[#found] or with_delayed({{}}, 0)
    end
    start = redis.call('ZRANK', KEYS[1], first)
end
local page = {{}}
for index, id in ipairs(redis.call('ZRANGE', KEYS[1], start, start + limit - 1)) do
    page[index] = redis.call('HGETALL', id)
end
return with_delayed(page, 0)
"""

_STEP = 500
"""Messages that one command looks at or deletes; Redis serves nobody else meanwhile."""

_DOOMED_SECONDS = 14 * 86400
"""For how long the list of a deleted queue's messages is kept, if its deletion is broken off; they
expire by themselves before that."""


def confine(driver: Any) -> None:
    """Let ids count only within their queue and project in a data driver."""
    driver.message_controller.__class__ = Messages
    driver.claim_controller.__class__ = Claims


def confine_queues(driver: Any) -> None:
    """The same for the queues of a control driver."""
    driver.queue_controller.__class__ = Queues


class _Containers:
    """Queues and topics as upstream's messages ask for them: topics are kept by other stores."""

    def __init__(self, driver: Any) -> None:
        self._queues = driver.queue_controller
        self._topics = driver.topic_controller

    def exists(self, name: str, project: str | None = None) -> bool:
        """Whether there is a queue of this name, or a topic."""
        return bool(
            self._queues.exists(name, project)
            or (self._topics is not None and self._topics.exists(name, project))
        )


class Messages(upstream_messages.MessageController):
    """Messages, found by project, queue and id.

    Delayed ones take their places when they are due, see `redis_delays`.
    """

    _post_delays: Sequence[int] = ()

    @functools.cached_property
    def _queue_ctrl(self) -> _Containers:
        return _Containers(self.driver)

    @functools.cached_property
    def _page(self) -> Any:
        return self._client.register_script(_PAGE)

    def _list(self, *args: Any, **named: Any) -> Iterator[Any]:
        """A page of messages, and the marker of the next; read when it is asked for."""
        yield from self._list_now(*args, **named)

    @utils.raises_conn_error
    @utils.retries_on_connection_error
    def _list_now(
        self,
        queue: str,
        project: str | None = None,
        marker: str | None = None,
        limit: int = base.DEFAULT_MESSAGES_PER_PAGE,
        echo: bool = False,
        client_uuid: object = None,
        include_claimed: bool = False,
        include_delayed: bool = False,
        to_basic: bool = True,
    ) -> tuple[Iterator[Any], str | None]:
        """A page of messages, and the marker of the next; None if the page is empty.

        The page after a marker that is not in the queue is the first.
        """
        if not self._queue_ctrl.exists(queue, project):
            raise errors.QueueDoesNotExist(queue, project)
        now = timeutils.utcnow_ts()
        skipped: list[Filter] = [utils.msg_expired_filter]
        if not include_claimed:
            skipped.append(utils.msg_claimed_filter)
        if not include_delayed:
            skipped.append(utils.msg_delayed_filter)
        if not echo:
            skipped.append(lambda message, _: utils.msg_echo_filter(message, client_uuid))
        found = self._find_page(
            utils.msgset_key(queue, project),
            marker or '',
            limit,
            '' if include_claimed else now,
            include_delayed=include_delayed,
        )
        messages = [
            Message.from_hmap(dict(zip(flat[::2], flat[1::2], strict=True)))
            for flat in found
            if flat
        ]
        page = [one for one in messages if not any(skip(one, now) for skip in skipped)]
        following = page[-1].id if page else None
        return iter([one.to_basic(now) if to_basic else one for one in page]), following

    def _find_page(
        self, key: str, marker: str, limit: int, now: float | str, *, include_delayed: bool
    ) -> list[list[bytes]]:
        """The hashes of a page; others are served while messages that are claimed are passed."""
        looked_at: bytes | str = '-inf'
        more = [redis_delays.now(), 'yes' if include_delayed else '']
        while True:
            args = [marker, limit, now, looked_at, _STEP, *more]
            found = self._page(keys=redis_delays.keys(key), args=args)
            if isinstance(found, list):
                return found
            looked_at = found

    @utils.raises_conn_error
    @utils.retries_on_connection_error
    def get(self, queue: str, message_id: str, project: str | None = None) -> dict[str, Any]:
        if not self._queue_ctrl.exists(queue, project):
            raise errors.QueueDoesNotExist(queue, project)
        found = list(self._get_each(queue, [message_id], project))
        if not found:
            raise errors.MessageDoesNotExist(message_id, queue, project)
        return found[0]

    @utils.raises_conn_error
    @utils.retries_on_connection_error
    def bulk_get(
        self, queue: str, message_ids: list[str], project: str | None = None
    ) -> Iterator[dict[str, Any]]:
        if not self._queue_ctrl.exists(queue, project):
            return iter(())
        return self._get_each(queue, message_ids, project)

    @utils.raises_conn_error
    @utils.retries_on_connection_error
    def delete(
        self, queue: str, message_id: str, project: str | None = None, claim: str | None = None
    ) -> None:
        if not self._queue_ctrl.exists(queue, project):
            return
        held = self._claims_on(queue, [message_id], project)
        if message_id not in held:
            return
        if claim is not None and not _is_uuid(claim):
            raise errors.ClaimDoesNotExist(claim, queue, project)
        holder = held[message_id]
        if claim is None and holder is not None:
            raise errors.MessageIsClaimed(message_id)
        if claim is not None and holder is None:
            raise errors.MessageNotClaimed(message_id)
        if claim is not None and holder != claim:
            if not self.driver.claim_controller._exists(queue, claim, project):
                raise errors.ClaimDoesNotExist(claim, queue, project)
            raise errors.MessageNotClaimedBy(message_id, claim)
        self._remove(queue, held, project)

    @utils.raises_conn_error
    @utils.retries_on_connection_error
    def bulk_delete(
        self,
        queue: str,
        message_ids: list[str],
        project: str | None = None,
        claim_ids: list[str] | None = None,
    ) -> None:
        if not self._queue_ctrl.exists(queue, project):
            return
        held = self._claims_on(queue, message_ids, project)
        for message_id, holder in held.items():
            if claim_ids and holder is None:
                raise errors.MessageNotClaimed(message_id)
            if claim_ids and holder not in claim_ids:
                raise errors.ClaimDoesNotMatch(holder, queue, project)
        self._remove(queue, held, project)

    def post(
        self,
        queue: str,
        messages: Iterable[dict[str, Any]],
        client_uuid: object,
        project: str | None = None,
    ) -> list[str]:
        messages = list(messages)
        call = copy.copy(self)
        call._post_delays = [message.get('delay') or 0 for message in messages]
        ids: list[str] = super(Messages, call).post(queue, messages, client_uuid, project)
        return ids

    def _index_messages(self, msgset_key: str, counter_key: str, message_ids: list[str]) -> None:
        now = time.time()
        delays = dict(zip(message_ids, self._post_delays, strict=False))
        at_once = [one for one in message_ids if not delays.get(one)]
        # Those of one post keep their order.
        due = {
            one: now + delay + place / 1e6
            for place, (one, delay) in enumerate(delays.items())
            if delay
        }
        if at_once:
            super()._index_messages(msgset_key, counter_key, at_once)
        if due:
            self._client.zadd(redis_delays.of_set(msgset_key), due)

    def _count(self, queue: str, project: str | None) -> int:
        delayed: int = self._client.zcard(redis_delays.delayed_key(queue, project))
        return delayed + int(super()._count(queue, project))

    def _delete_queue_messages(self, queue: str, project: str | None, pipe: Any) -> None:
        """Remove the claims as well, which a queue that is created again would have.

        What is there now is removed in steps, between which others are served; what is posted
        meanwhile is left to `pipe`.
        """
        delayed = redis_delays.delayed_key(queue, project)
        for key in (utils.msgset_key(queue, project), delayed):
            doomed = f'{key}.doomed.{uuid.uuid4().hex}'
            try:
                self._client.rename(key, doomed)
            except redis.ResponseError:
                # There is none.
                continue
            self._client.expire(doomed, _DOOMED_SECONDS)
            self._delete_listed(doomed)
        super()._delete_queue_messages(queue, project, pipe)
        pipe.delete(delayed, *self._client.zrange(delayed, 0, -1))
        self.driver.claim_controller._delete_queue_claims(queue, project, pipe)

    def _delete_listed(self, key: str) -> None:
        """Remove the messages of a sorted set of ids, and from the set."""
        while ids := self._client.zrange(key, 0, _STEP - 1):
            with self._client.pipeline() as pipe:
                pipe.delete(*ids)
                pipe.zrem(key, *ids)
                pipe.execute()

    def _get_each(
        self, queue: str, message_ids: list[str], project: str | None
    ) -> Iterator[dict[str, Any]]:
        """Those of the messages that are in the queue and have not expired."""
        fields: dict[str, Fields] = self._read(
            queue, message_ids, project, lambda pipe, message_id: pipe.hgetall(message_id)
        )
        now = timeutils.utcnow_ts()
        messages = [Message.from_hmap(one) for one in fields.values() if one]
        return (one.to_basic(now) for one in messages if not utils.msg_expired_filter(one, now))

    def _claims_on(
        self, queue: str, message_ids: list[str], project: str | None
    ) -> dict[str, str | None]:
        """By message the claim that holds it, of those that are in the queue and still exist."""
        claims: dict[str, Claim] = self._read(
            queue, message_ids, project, lambda pipe, message_id: pipe.hmget(message_id, 'c', 'c.e')
        )
        now = timeutils.utcnow_ts()
        return {
            message_id: claim_id.decode() if claim_id and int(expires) > now else None
            for message_id, (claim_id, expires) in claims.items()
            if claim_id is not None
        }

    def _read(
        self,
        queue: str,
        message_ids: list[str],
        project: str | None,
        read: Callable[[Any, str], object],
    ) -> dict[str, Any]:
        """The results of `read` for those of the ids that are in the queue."""
        key = utils.msgset_key(queue, project)
        with self._client.pipeline(transaction=False) as pipe:
            for message_id in message_ids:
                pipe.zscore(key, message_id)
                pipe.zscore(redis_delays.of_set(key), message_id)
                read(pipe, message_id)
            # An id that is not of the queue may be the key of anything, which cannot be read so.
            results = pipe.execute(raise_on_error=False)
        found = {}
        answers = zip(message_ids, results[::3], results[1::3], results[2::3], strict=True)
        for message_id, rank, due, result in answers:
            for score in (rank, due):
                if isinstance(score, redis.RedisError):
                    raise score
            if rank is None and due is None:
                continue
            if isinstance(result, redis.RedisError):
                raise result
            found[message_id] = result
        return found

    def _remove(self, queue: str, held: dict[str, str | None], project: str | None) -> None:
        if not held:
            return
        key = utils.msgset_key(queue, project)
        with self._client.pipeline() as pipe:
            pipe.delete(*held)
            pipe.zrem(key, *held)
            pipe.zrem(redis_delays.of_set(key), *held)
            for message_id, claim_id in held.items():
                if claim_id is not None:
                    self.driver.claim_controller._del_message(
                        queue, project, claim_id, message_id, pipe
                    )
            pipe.execute()


class Queues(upstream_queues.QueueController):
    """Queues, listed by their whole names, and created by one request only."""

    @utils.raises_conn_error
    @utils.retries_on_connection_error
    def _list(
        self,
        project: str | None = None,
        kfilter: object = None,
        marker: str | None = None,
        limit: int = 10,
        detailed: bool = False,
        name: object = None,
    ) -> Iterator[Any]:
        """A page of the project's queues, by name, and the marker of the next."""
        scope = utils.scope_queue_name(None, project)
        key = utils.scope_queue_name(upstream_queues.QUEUES_SET_STORE_NAME, project)
        # By name and not by rank, which changes while queues are deleted.
        after = f'({scope}{marker}' if marker else '-'
        queues = self._client.zrangebylex(key, after, '+', start=0, num=limit)
        with self._client.pipeline(transaction=False) as pipe:
            for queue in queues:
                pipe.hget(queue, 'm')
            packed = pipe.execute(raise_on_error=False)
        page = []
        for queue, metadata in zip(queues, packed, strict=True):
            # What upstream's server has let in under the name of one of its own keys is left out.
            if isinstance(metadata, bytes):
                entry: dict[str, Any] = {'name': queue.decode().removeprefix(scope)}
                if detailed:
                    entry['metadata'] = msgpack.unpackb(metadata)
                page.append(entry)
        yield iter(page)
        yield page[-1]['name'] if page else None

    @utils.raises_conn_error
    def _create(
        self, name: str, metadata: dict[str, Any] | None = None, project: str | None = None
    ) -> bool:
        """Create a queue; False where there is one, which is left as it is."""
        queue = utils.scope_queue_name(name, project)
        key = utils.scope_queue_name(upstream_queues.QUEUES_SET_STORE_NAME, project)
        fields = {
            'c': 0,
            'cl': 0,
            'm': msgpack.packb(metadata or {}, use_bin_type=True),
            't': timeutils.utcnow_ts(),
        }
        with self._client.pipeline() as pipe:
            pipe.zadd(key, {queue: 1}, nx=True)
            for field, value in fields.items():
                pipe.hsetnx(queue, field, value)
            added = pipe.execute()[0]
        return bool(added)


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True
