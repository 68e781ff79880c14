"""Messages: posted, listed, read, taken and deleted."""

from __future__ import annotations

import datetime
import functools
import hashlib
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from oslo_utils import timeutils
from zaqar.storage import base, errors
from zaqar.storage import utils as storage_utils

from zaqar_gevent.bodies import Body
from zaqar_gevent.markers import MarkerNotGiven
from zaqar_gevent.storage import own_drivers
from zaqar_gevent.storage.interface import StoredMessage
from zaqar_gevent.storage.redis import bodies, keys
from zaqar_gevent.storage.redis.documents import Fields, Page, describe_first, restoring
from zaqar_gevent.storage.redis.servers import load

if TYPE_CHECKING:
    from zaqar_gevent.storage.redis.driver import DataDriver

STEP = 500
"""Messages that one call looks at where a whole queue is counted, purged or deleted."""

_POST = load('post', is_repeatable=False)
_REPEATABLE_POST = load('post')
_FIND_POST = load('find_post', is_write=False)
_LIST = load('list', is_write=False)
_GET = load('get', is_write=False)
_EDGE = load('edge', is_write=False)
_DELETE = load('delete')
_DELETE_MANY = load('delete_many')
_PURGE = load('purge')
_RESTORE = load('restore')
_COLLECT = load('collect', is_write=False)

EXTRAS = ('attributes', 'group')
"""Members of messages that are stored beside upstream's."""

Arguments = list[Any]

NOBODY = str(uuid.UUID(int=0))
"""The client of messages without one."""

_ALL = 2**31

_NO_CLAIM = '-'

# The start of every queue, which clients poll from, is a marker as well.
_MARKER = re.compile('0{16}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}')
_START = '0' * 16
_RANKED = re.compile('[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-a[0-9a-f]{3}-[0-9a-f]{12}')


def new_ids(key: str) -> str:
    """The prefix of the ids of one call's messages; their ranks follow.

    key: of the queue's messages.

    They are UUIDs of version 8 (RFC 9562), by which queue and place of a message are known when it
    is gone. Those of upstream's servers have version 4, and are read alike.
    """
    digits = os.urandom(5).hex()
    return f'{_digest(key)}-{digits[:4]}-8{digits[4:7]}-a{digits[7:]}-'


def start_of_ids(key: str) -> str:
    """What the ids of all messages of a queue begin with. key: of the messages."""
    return _digest(key)


@functools.lru_cache(maxsize=4096)
def _digest(key: str) -> str:
    """The prefix of a queue's ids, as `list.lua` makes it from the key."""
    return hashlib.sha1(key.encode(), usedforsecurity=False).hexdigest()[:8]


class MessageController(own_drivers.MessageController):
    """The messages of one server. Times are in seconds."""

    def __init__(self, driver: DataDriver) -> None:
        super().__init__(driver)
        self._server = driver.server

    def post(
        self,
        queue: str,
        messages: Iterable[dict[str, Any]],
        client_uuid: uuid.UUID | str | None,
        project: str | None = None,
    ) -> list[str]:
        """Post `messages` (`ttl`, `body`, `delay`), in order; their ids.

        A body is a `Body` or a value, of which bytes are an encrypted one. A message may have
        `attributes`, texts by name, if the driver has this feature.

        A post whose first message has a `post_id` is made once: repeated within the driver's
        `idempotency_seconds` it has the same ids.

        Raises `QueueDoesNotExist`; `ValueError` for a client that is not a UUID; `OutcomeUnknown`.
        """
        messages = list(messages)
        if not messages:
            return []
        keeps_names = self.driver.keeps_names
        if not keeps_names and not self.driver.has_queue(queue, project):
            raise errors.QueueDoesNotExist(queue, project)
        post_id = messages[0].get('post_id')
        seconds = self.driver.idempotency_seconds if post_id is not None else 0
        name, key = keys.queue(queue, project), keys.messages(queue, project)
        found = self._server.run(
            _REPEATABLE_POST if seconds else _POST,
            (
                key,
                keys.rank_counter(queue, project),
                keys.queues(project),
                keys.topics(project),
                name + keys.TOPIC,
                keys.receipt(queue, project, str(post_id)) if seconds else '',
                keys.posts(queue, project),
            ),
            name if keeps_names else '',
            *self._complete(
                messages, client_uuid, new_ids(key), seconds, self._is_counted(project)
            ),
        )
        if found is None:
            raise errors.QueueDoesNotExist(queue, project)
        ids = [one.decode() for one in found]
        if not keeps_names and not self.driver.has_queue(queue, project):
            # Deleted between the check and the post: nobody else will remove these.
            self.bulk_delete(queue, ids, project)
            raise errors.QueueDoesNotExist(queue, project)
        return ids

    def find_post(
        self, queue: str, post_id: str, size: int, project: str | None = None
    ) -> Sequence[str] | None:
        """The ids of a post that was made with this id; None for none that is remembered."""
        name = keys.queue(queue, project)
        found = self._server.run(
            _FIND_POST,
            (
                keys.messages(queue, project),
                name + keys.TOPIC,
                keys.receipt(queue, project, post_id),
                keys.posts(queue, project),
            ),
            name if self.driver.keeps_names else '',
        )
        return None if found is None else [one.decode() for one in found]

    def _is_counted(self, project: str | None) -> str:
        """What scripts are told of whether the bytes of a project are counted."""
        return '1' if self.driver.usage_controller.counts(project) else ''

    def _complete(
        self,
        messages: Iterable[dict[str, Any]],
        client_uuid: uuid.UUID | str | None,
        ids: str,
        seconds: int,
        is_counted: str,
    ) -> Arguments:
        """The arguments of the script for `messages`."""
        now = timeutils.utcnow_ts()
        checked = self._has_checksums()
        arguments: Arguments = [now, _encode_client(client_uuid), ids, seconds, is_counted]
        for new in messages:
            body = new.get('body', {})
            checksum = storage_utils.get_checksum(_value_of(body)) if checked else ''
            arguments += (new['ttl'], _due_at(new), *bodies.store(body), checksum, _extras_of(new))
        return arguments

    def list(
        self,
        queue: str,
        project: str | None = None,
        marker: str | None = None,
        limit: int | None = base.DEFAULT_MESSAGES_PER_PAGE,
        echo: bool = False,
        client_uuid: uuid.UUID | str | None = None,
        include_claimed: bool = False,
        include_delayed: bool = False,
    ) -> Iterator[Any]:
        """A page of messages, oldest first, and the marker of the next: that of its last message.

        The marker of an empty page is the given one. The page after a message that is gone goes on
        from its place; where an upstream server had posted it that is not known, and the page is
        the first. Nothing comes after what has not the form of a marker.

        Raises `MarkerNotGiven` for one of another store.
        """
        if marker and not _MARKER.fullmatch(marker):
            return iter((iter(()), None))
        now = timeutils.utcnow_ts()
        limit = limit or _ALL
        page = Page()
        after: str | None = '' if not marker or marker == _START else marker
        client = '' if echo or not client_uuid else str(client_uuid)
        while after is not None:
            found = self._server.run(
                _LIST,
                (
                    keys.messages(queue, project),
                    keys.rank_counter(queue, project),
                    keys.head(queue, project),
                    keys.claims(queue, project),
                ),
                now,
                after,
                limit - len(page),
                exact_time(),
                client,
                '1' if include_claimed else '',
                '1' if include_delayed else '',
                self.driver.shared,
            )
            if found is None:
                raise MarkerNotGiven(str(marker))
            page.add(found[0])
            after = f'({found[1].decode()}' if len(found) > 1 else None
        return iter((self.driver.present(page), page.last_id or marker))

    def keeps_place(self, queue: str, marker: str | None, project: str | None = None) -> bool:
        """Whether the place of a marker is known even if its message is gone; None is the start."""
        if marker is None:
            return True
        digest = _digest(keys.messages(queue, project))
        return marker.startswith(digest) and _RANKED.fullmatch(marker) is not None

    def first(self, queue: str, project: str | None = None, sort: int = 1) -> StoredMessage:
        """The oldest message, or with `sort=-1` the newest, claimed or not; or `QueueIsEmpty`."""
        if sort not in (1, -1):
            raise ValueError('sort must be 1 (oldest first) or -1 (newest first)')
        now = timeutils.utcnow_ts()
        found = self._server.run(_EDGE, (keys.messages(queue, project),), now, sort, exact_time())
        if found is None:
            raise errors.QueueIsEmpty(queue, project)
        return describe_first(self.driver.present(Page(found)), now)

    def bulk_get(
        self, queue: str, message_ids: Sequence[str], project: str | None = None
    ) -> Iterator[StoredMessage]:
        """Those of the messages that exist."""
        now = timeutils.utcnow_ts()
        key = keys.messages(queue, project)
        found = self._server.run(_GET, (key,), now, *message_ids)
        return iter(self.driver.present(Page(found)))

    def delete(
        self, queue: str, message_id: str, project: str | None = None, claim: str | None = None
    ) -> None:
        """Delete a message, which may be gone already; a claimed one only by its claim.

        Raises `MessageIsClaimed`, `MessageNotClaimed`, `MessageNotClaimedBy` or
        `ClaimDoesNotExist`.
        """
        refusal = self._server.run(
            _DELETE,
            (keys.messages(queue, project), keys.claims(queue, project)),
            timeutils.utcnow_ts(),
            message_id,
            claim_argument(claim),
        )
        if not refusal:
            return
        if claim is None or refusal == 1:
            raise errors.MessageIsClaimed(message_id)
        if refusal == 4 or not _is_uuid(claim):
            raise errors.ClaimDoesNotExist(claim, queue, project)
        if refusal == 2:
            raise errors.MessageNotClaimed(message_id)
        raise errors.MessageNotClaimedBy(message_id, claim)

    def bulk_delete(
        self,
        queue: str,
        message_ids: Sequence[str],
        project: str | None = None,
        claim_ids: Sequence[str] | None = None,
    ) -> None:
        """Delete messages, claimed or not; with `claim_ids`, only if those claims hold them.

        Raises `ClaimDoesNotMatch` or `MessageNotClaimed`, and deletes nothing then.
        """
        claims = claim_ids or ()
        key = keys.messages(queue, project)
        refusal = self._server.run(
            _DELETE_MANY, (key,), timeutils.utcnow_ts(), len(claims), *claims, *message_ids
        )
        if refusal is None:
            return
        message_id, *holder = [one.decode() for one in refusal]
        if not holder:
            raise errors.MessageNotClaimed(message_id)
        raise errors.ClaimDoesNotMatch(holder[0], queue, project)

    def purge(self, queue: str, project: str | None = None) -> None:
        """Delete the messages that are there now and not claimed, some in each call."""
        after, last = b'-inf', b''
        key = keys.messages(queue, project)
        while found := self._server.run(_PURGE, (key,), timeutils.utcnow_ts(), after, last, STEP):
            after, last = found

    def pop(self, queue: str, limit: int, project: str | None = None) -> Sequence[StoredMessage]:
        """Take up to `limit` messages that are not claimed from the front of the queue.

        As with upstream's driver it counts as a claim: dead letters are moved instead.
        """
        popped: list[StoredMessage] = self.driver.take(queue, project, limit)
        return popped

    def restore(
        self, queue: str, popped: Sequence[StoredMessage], project: str | None = None
    ) -> None:
        """Put messages that `pop` gave back in their places; `echo` no longer knows who posted."""
        now = timeutils.utcnow_ts()
        arguments: Arguments = []
        for one in popped:
            arguments += (
                one['id'],
                one['ttl'],
                now - one['age'],
                one['claim_count'],
                *bodies.store(one['body']),
                one.get('checksum', ''),
                _extras_of(one),
            )
        self._restore(queue, project, arguments)

    def put_back(self, queue: str, stored: Sequence[Fields], project: str | None) -> None:
        """The same with messages as they were stored, which may be damaged."""
        arguments: Arguments = []
        for fields in stored:
            arguments += restoring(fields)
        self._restore(queue, project, arguments)

    def _restore(self, queue: str, project: str | None, arguments: Arguments) -> None:
        places = (
            keys.messages(queue, project),
            keys.rank_counter(queue, project),
            keys.head(queue, project),
        )
        now = timeutils.utcnow_ts()
        self._server.run(_RESTORE, places, now, NOBODY, self._is_counted(project), *arguments)

    def gc(self) -> int:
        """Take what has expired out of all queues; how many messages."""
        return sum(self._collect(key) for key in self.find_queues())

    def find_queues(self) -> Iterator[str]:
        """The keys of the messages of all queues and topics."""
        after = '-'
        while found := self._server.ask('ZRANGEBYLEX', keys.INDEX, after, '+', 'LIMIT', 0, STEP):
            yield from (key.decode() for key in found)
            after = f'({found[-1].decode()}'

    def _collect(self, key: str) -> int:
        removed = 0
        after: Any = b'-inf'
        claims = key.removesuffix('messages') + 'claims'
        while after is not None:
            count, after = self._server.run(
                _COLLECT, (key, claims), timeutils.utcnow_ts(), after, STEP
            )
            removed += count
        return removed


def claim_argument(claim_id: str | None) -> str:
    """A claim id as scripts take it: '' for None, and for an empty one an id that no claim has.

    Messages that no claim holds have an empty claim id in Redis.
    """
    return '' if claim_id is None else claim_id or _NO_CLAIM


def exact_time() -> str:
    """Now, as scripts compare it with when messages are due."""
    return repr(float(timeutils.utcnow_ts(microsecond=True)))


@functools.lru_cache(maxsize=16)
def iso_time(now: int) -> str:
    """A time in ISO 8601. PERF: it is the same for all calls of a second."""
    return datetime.datetime.fromtimestamp(now, datetime.UTC).strftime('%Y-%m-%dT%H:%M:%SZ')


def _due_at(new: dict[str, Any]) -> str | int:
    """When a message becomes visible; 0 for at once: another server's clock may be behind.

    With an `s` behind it, its TTL counts from then on.
    """
    delay: float = new.get('delay') or 0
    if not delay:
        return 0
    due = repr(float(timeutils.utcnow_ts(microsecond=True)) + delay)
    return f'{due}s' if new.get('scheduled') else due


def _extras_of(message: StoredMessage) -> bytes:
    """The stored form of a message's members beyond upstream's; empty for none."""
    extras = {name: message[name] for name in EXTRAS if message.get(name)}
    return bodies.pack(extras) if extras else b''


def _value_of(body: Any) -> Any:
    return body.value if isinstance(body, Body) else body


@functools.lru_cache(maxsize=4096)
def _encode_client(client: uuid.UUID | str | None) -> str:
    """The form that upstream stores; raises `ValueError` for anything but a UUID."""
    if client is None:
        return NOBODY
    return str(client if isinstance(client, uuid.UUID) else uuid.UUID(client))


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True
