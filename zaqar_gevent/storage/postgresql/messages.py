"""Messages: posted, listed, read, taken and deleted."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from oslo_utils import timeutils
from zaqar.storage import base, errors
from zaqar.storage import utils as storage_utils

from zaqar_gevent.bodies import Body
from zaqar_gevent.markers import MarkerNotGiven
from zaqar_gevent.storage import own_drivers
from zaqar_gevent.storage.core import position_markers
from zaqar_gevent.storage.core.pages import (
    decode_id,
    encode_attributes,
    encode_body,
    encode_id,
    encode_object,
    read_page,
    read_taken,
)
from zaqar_gevent.storage.errors import StoreUnavailable
from zaqar_gevent.storage.interface import StoredMessage
from zaqar_gevent.storage.postgresql import documents, kinds, numbers, posting, upkeep
from zaqar_gevent.storage.postgresql.wire import Merge

if TYPE_CHECKING:
    from zaqar_gevent.storage.postgresql.driver import DataDriver

LONG_PAGE = 100
"""Messages of a page from which on it is read where it holds nobody up."""

STEP = 500
"""Messages of each kind that one transaction of a purge deletes at most."""

_LAST = 2**63 - 1
_MERGE_EACH = Merge(joined=(3, 4), latest=2)
_MERGE_HELD = Merge(joined=(3, 4, 5), latest=2, distinct=5)
_MERGE_FREELY = Merge(joined=(3,), latest=2)


class MessageController(own_drivers.MessageController):
    """The messages of one database."""

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
        """Post `messages` (`ttl`, `body`, `delay` in seconds), in order; their ids.

        The body of a message is a `Body` where the driver `carries_bodies`, and otherwise a value:
        then one of bytes, which must be ASCII, is an encrypted one, and is given back as bytes.

        A message may have `attributes`, texts by name. One that is `scheduled` counts as posted
        when its delay is over.

        A post whose first message has a `post_id` is made once: repeated within the driver's
        `idempotency_seconds` it has the same ids. The first may have a `passed` as well, which is
        told to `listen`ers when delayed messages of the post are due.

        Raises `QueueDoesNotExist`; `ValueError` for a client that is not a UUID; `OutcomeUnknown`.
        """
        messages = list(messages)
        if not messages:
            return []
        keeps_names = self.driver.keeps_names
        if not keeps_names and not self.driver.has_queue(queue, project):
            raise errors.QueueDoesNotExist(queue, project)
        heads, bodies = self._complete(messages, client_uuid)
        delays = [one['d'] for one in heads if 'd' in one]
        first = self._server.post(
            posting.Post(
                project or '',
                queue,
                heads,
                bodies,
                keeps_names,
                messages[0].get('post_id'),
                self.driver.idempotency_seconds,
                messages[0].get('passed'),
                bool(delays),
            )
        )
        if first is None:
            raise errors.QueueDoesNotExist(queue, project)
        if delays:
            self._server.upkeep.delayed(timeutils.utcnow_ts(microsecond=True) + min(delays))
        ids = [encode_id(first + place) for place in range(len(messages))]
        if not keeps_names and not self.driver.has_queue(queue, project):
            # Deleted between the check and the post: nobody else will remove these.
            self.bulk_delete(queue, ids, project)
            raise errors.QueueDoesNotExist(queue, project)
        return ids

    def find_post(
        self, queue: str, post_id: str, size: int, project: str | None = None
    ) -> Sequence[str] | None:
        """The ids of a post that was made with this id; None for none that is remembered."""
        first, _ = self._server.call(
            kinds.READS,
            'find_post',
            *(project or '', queue, timeutils.utcnow_ts(microsecond=True), posting.digest(post_id)),
        )
        return None if first is None else [encode_id(first + place) for place in range(size)]

    def _complete(
        self, messages: Iterable[dict[str, Any]], client_uuid: uuid.UUID | str | None
    ) -> tuple[list[dict[str, Any]], list[Any]]:
        client = _encode_client(client_uuid)
        checked = self._has_checksums()
        heads, bodies = [], []
        for new in messages:
            body = new.get('body', {})
            if not isinstance(body, Body):
                body = Body.of(body)
            head: dict[str, Any] = {'t': numbers.clamp(new['ttl'])}
            if client is not None:
                head['u'] = client
            if new.get('delay'):
                head['d'] = new['delay']
                if new.get('scheduled'):
                    head['l'] = 1
            if body.encoding:
                head['e'] = int(body.encoding)
            if checked:
                head['s'] = storage_utils.get_checksum(body.value) or None
            if new.get('attributes'):
                head['a'] = encode_object(new['attributes'])
            if new.get('group'):
                head['g'] = new['group']
            heads.append(head)
            bodies.append(encode_body(body))
        return heads, bodies

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
        """A page of messages in their order, and the marker of the next: that of its last message.

        A message that was delayed has a `position` instead of its id in the marker. With
        `include_delayed`, delayed messages are listed as if they were not, and once more when they
        are due.

        The marker of an empty page is the given one. Nothing comes after what has not the form of
        a marker, as with upstream's drivers. Raises `MarkerNotGiven` for one of another store.
        """
        after = position_markers.decode(marker)
        if after is None:
            return iter((iter(()), None))
        now = timeutils.utcnow_ts(microsecond=True)
        kind = kinds.READS if limit and limit < LONG_PAGE else kinds.SCANS
        arguments = (
            *(project or '', queue, now, after.id, after.epoch, limit or None),
            *(None if echo else _encode_client(client_uuid), include_claimed, include_delayed),
        )
        facts, document = self._server.call(kind, 'list', *arguments)
        if facts[3] and self._place(project, queue, limit):
            facts, document = self._server.call(kind, 'list', *arguments)
        last, epoch, is_given, _ = facts
        if marker and not is_given:
            raise MarkerNotGiven(marker)
        self._server.saw(last)
        messages = read_page(document, as_bodies=self.driver.carries_bodies)
        return iter((messages, position_markers.encode(last, epoch) if last else marker))

    def _place(self, project: str | None, queue: str, limit: int | None) -> bool:
        """Make messages visible that are due, as many as a page has; whether that could be done.

        Where nothing can be written, there is a list of the others still.
        """
        try:
            self._server.upkeep.place(self._server, project or '', queue, limit or 1)
        except StoreUnavailable:
            return False
        return True

    def end(self, queue: str, project: str | None = None) -> str | None:
        """A marker after all that is visible in a queue now; None if that is the start."""
        now = timeutils.utcnow_ts(microsecond=True)
        facts, _ = self._server.call(kinds.READS, 'end', project or '', queue, now)
        return None if facts is None else position_markers.encode(*facts)

    def first(self, queue: str, project: str | None = None, sort: int = 1) -> StoredMessage:
        """The oldest message, or with `sort=-1` the newest, claimed or not; or `QueueIsEmpty`."""
        if sort not in (1, -1):
            raise ValueError('sort must be 1 (oldest first) or -1 (newest first)')
        now = timeutils.utcnow_ts(microsecond=True)
        facts, _ = self._server.call(kinds.READS, 'stats', project or '', queue, now, False)
        if not facts[0]:
            raise errors.QueueIsEmpty(queue, project)
        number, _ = facts[0][0 if sort == 1 else -1]
        return self.get(queue, encode_id(number), project)

    def bulk_get(
        self, queue: str, message_ids: Sequence[str], project: str | None = None
    ) -> Iterator[StoredMessage]:
        """Those of the messages that exist, oldest first."""
        now = timeutils.utcnow_ts(microsecond=True)
        numbers = documents.decode_numbers(message_ids)
        _, document = self._server.call(kinds.READS, 'get', project or '', queue, now, numbers)
        return iter(read_page(document, as_bodies=self.driver.carries_bodies))

    def delete(
        self, queue: str, message_id: str, project: str | None = None, claim: str | None = None
    ) -> None:
        """Delete a message, which may be gone already; a claimed one only by its claim.

        Raises `MessageIsClaimed`, `MessageNotClaimed`, `MessageNotClaimedBy` or
        `ClaimDoesNotExist`.
        """
        number = decode_id(message_id)
        if number is None:
            return
        now = timeutils.utcnow_ts(microsecond=True)
        # No claim has a new id.
        token = 'NULL' if claim is None else documents.decode_token(claim) or uuid.uuid4().hex
        refusal, _ = self._server.call(
            kinds.WRITES,
            'delete_each',
            *(project or '', queue, now),
            *(documents.encode_array((number,)), documents.encode_array((token,))),
            merge=_MERGE_EACH,
        )
        if refusal:
            raise refuse_to_delete(refusal, message_id, claim, queue, project)
        self._server.upkeep.removed(project or '', queue, 1)

    def bulk_delete(
        self,
        queue: str,
        message_ids: Sequence[str],
        project: str | None = None,
        claim_ids: Sequence[str] | None = None,
    ) -> None:
        """Delete messages, claimed or not; with `claim_ids`, only if those claims hold them.

        Raises `ClaimDoesNotExist` or `MessageNotClaimed`, and deletes nothing then.
        """
        numbers = documents.decode_numbers(message_ids)
        if numbers == '{}':
            return
        for claim in claim_ids or ():
            if documents.decode_token(claim) is None:
                raise errors.ClaimDoesNotExist(claim, queue, project)
        refusal = self._delete_many(queue, project or '', numbers, claim_ids or ())
        if refusal is None:
            self._server.upkeep.removed(project or '', queue, len(message_ids))
            return
        if len(refusal) == 1:
            raise errors.MessageNotClaimed(encode_id(refusal[0]))
        raise errors.ClaimDoesNotExist(uuid.UUID(refusal[1]).hex, queue, project)

    def _delete_many(self, queue: str, project: str, numbers: str, claims: Sequence[str]) -> Any:
        """Delete messages; why not, as `delete_many` in functions.sql says it, or None."""
        now = timeutils.utcnow_ts(microsecond=True)
        name, merge = 'delete_many', None
        more: tuple[str | None, ...]
        if not claims:
            more, merge = (None,), _MERGE_FREELY
        elif len(claims) > 1:
            more = (documents.encode_array(claims),)
        else:
            # PERF: the usual call. Others are sent with it, since it says whose each number is.
            claim = str(claims[0]).replace('-', '')
            owners = (claim,) * (numbers.count(',') + 1)
            name, merge = 'delete_held', _MERGE_HELD
            more = (documents.encode_array(owners), documents.encode_array((claim,)))
        return self._server.call(
            kinds.WRITES, name, project, queue, now, numbers, *more, merge=merge
        )[0]

    def purge(self, queue: str, project: str | None = None) -> None:
        """Delete the messages that are there now and not claimed, some in each transaction."""
        now = timeutils.utcnow_ts(microsecond=True)
        # All that was acknowledged before is committed, and what comes later has higher numbers.
        last, _ = self._server.call(kinds.READS, 'last_number')
        has_more = True
        while has_more:
            has_more, _ = self._server.call(
                kinds.STEPS, 'purge', project or '', queue, now, last, STEP
            )
            self._server.upkeep.removed(project or '', queue, STEP)

    def pop(self, queue: str, limit: int, project: str | None = None) -> Sequence[StoredMessage]:
        """Take up to `limit` messages that are not claimed from the front of the queue."""
        document = self.driver.take(queue, project, limit)

        def give_back(popped: list[StoredMessage]) -> None:
            self.restore(queue, popped, project)

        as_bodies = self.driver.carries_bodies
        return [*read_taken(document, give_back, queue, project, as_bodies=as_bodies)]

    def restore(
        self, queue: str, popped: Sequence[StoredMessage], project: str | None = None
    ) -> None:
        """Put messages that `pop` gave back in their places; `echo` no longer knows who posted."""
        now = timeutils.utcnow_ts(microsecond=True)
        heads, stored = [], []
        for one in popped:
            body = one['body'] if isinstance(one['body'], Body) else Body.of(one['body'])
            heads.append(
                {
                    'i': decode_id(one['id']) or 0,
                    'p': decode_id(one.get('position')),
                    't': one['ttl'],
                    'c': now - one['age'],
                    'n': one['claim_count'],
                    's': one.get('checksum'),
                    'e': int(body.encoding),
                    'a': encode_attributes(one.get('attributes'), one.get('known_as')),
                    'g': one.get('group'),
                    'l': encode_object(one.get('dead_letter')),
                }
            )
            stored.append(encode_body(body))
        self._server.call(
            kinds.STEPS,
            'restore',
            *(project or '', queue, msgspec.json.encode(heads), posting.encode_array(stored)),
        )


def refuse_to_delete(
    refusal: int, message_id: str, claim: str | None, queue: str, project: str | None
) -> Exception:
    """Why a message was not deleted, by what `delete` in functions.sql says."""
    error: Exception
    if claim is None:
        error = errors.MessageIsClaimed(message_id)
    elif documents.decode_token(claim) is None or refusal == 4:
        error = errors.ClaimDoesNotExist(claim, queue, project)
    elif refusal == 2:
        error = errors.MessageNotClaimed(message_id)
    else:
        error = errors.MessageNotClaimedBy(message_id, claim)
    return error


def collect(driver: DataDriver) -> None:
    """Remove what has expired or been left behind by now; returns when it is gone."""
    while upkeep.collect(driver.server, is_thorough=True):
        pass


@functools.lru_cache(maxsize=4096)
def _encode_client(client: uuid.UUID | str | None) -> str | None:
    return None if client is None else str(uuid.UUID(str(client)))
