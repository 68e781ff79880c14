"""Messages: posted, listed, read, taken and deleted."""

from __future__ import annotations

import functools
import sqlite3
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from oslo_config import cfg
from oslo_utils import timeutils
from zaqar.storage import base, errors
from zaqar.storage import utils as storage_utils

from zaqar_gevent.bodies import Body
from zaqar_gevent.markers import MarkerNotGiven
from zaqar_gevent.storage import own_drivers
from zaqar_gevent.storage.core import position_markers
from zaqar_gevent.storage.core.pages import (
    decode_id,
    encode_body,
    encode_id,
    encode_object,
    join_heads,
    read_page,
    read_taken,
)
from zaqar_gevent.storage.errors import StoreUnavailable
from zaqar_gevent.storage.interface import StoredMessage
from zaqar_gevent.storage.own_drivers import DeadLetters
from zaqar_gevent.storage.sqlite import (
    apart,
    claiming,
    delays,
    epochs,
    long_bodies,
    posting,
    receipts,
    removal,
    spools,
    staging,
    steps,
)
from zaqar_gevent.storage.sqlite.documents import (
    SPOOL,
    decode_ids,
    message,
    page,
    row,
    whole_message,
)

if TYPE_CHECKING:
    from zaqar_gevent.storage.sqlite.driver import DataDriver

PAGE_BYTES = 8 * 1024 * 1024
"""Bytes of bodies after which a page ends; it has one message at least, however long.

No page of bodies of the default max_messages_post_size has as many.
"""

# A longer page is read in a reading thread, one message after the other.
_SHORT_PAGE_BYTES = 512 * 1024

# Queues of which it is remembered that their pages are long.
_MAX_LONG = 1000

_ACTIVE_CLAIM = 'LEFT JOIN claims c ON c.id = m.claim AND c.expires > :now'


class MessageController(own_drivers.MessageController):
    """The messages of one file."""

    def __init__(self, driver: DataDriver) -> None:
        super().__init__(driver)
        self._database = driver.database
        self._longest = _longest_post(driver.conf)
        # Those whose latest page was long; the values mean nothing.
        self._long: dict[tuple[str, str], None] = {}

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
        when its delay is over: its `ttl` and `age` count from then on.

        A post whose first message has a `post_id` is made once: repeated within the driver's
        `idempotency_seconds` it has the same ids. The first may have a `passed` as well, which is
        told to `listen`ers when delayed messages of the post are due.

        Raises `QueueDoesNotExist`; `ValueError` for a client that is not a UUID.
        """
        messages = list(messages)
        now = timeutils.utcnow_ts(microsecond=True)
        keeps_names = self.driver.keeps_names
        if not keeps_names and not self.driver.has_queue(queue, project):
            raise errors.QueueDoesNotExist(queue, project)
        first_message = messages[0] if messages else {}
        rows, size, due = self._complete(messages, client_uuid, now)
        new = posting.Post(
            project or '',
            queue,
            rows,
            keeps_names,
            first_message.get('post_id'),
            now + self.driver.idempotency_seconds,
            due,
            first_message.get('passed'),
            _extras_of(messages),
        )
        if size <= staging.STAGED_BYTES:
            first, last = self._database.write(posting.post, new)
        else:
            first, last = self._post_staged(new)
        ids = [encode_id(number) for number in range(first, last + 1)]
        if not keeps_names and not self.driver.has_queue(queue, project):
            # Deleted between the check and the post: nobody else will remove these.
            self.bulk_delete(queue, ids, project)
            raise errors.QueueDoesNotExist(queue, project)
        return ids

    def find_post(
        self, queue: str, post_id: str, size: int, project: str | None = None
    ) -> Sequence[str] | None:
        """The ids of a post that was made with this id; None for none that is remembered."""
        span = self._database.read(receipts.find_one, project or '', queue, post_id)
        return None if span is None else [encode_id(one) for one in range(span[0], span[1] + 1)]

    def _post_staged(self, new: posting.Post) -> tuple[int, int]:
        bodies = posting.bodies_of(new.rows)
        with staging.staged(self._database, new.project, bodies) as staged:
            rows = posting.with_bodies(new.rows, staged)
            numbers = staging.numbers(staged)
            new = msgspec.structs.replace(new, rows=rows, staged=numbers)
            span: tuple[int, int] = self._database.write(posting.post, new)
            return span

    def _complete(
        self, messages: Iterable[dict[str, Any]], client_uuid: uuid.UUID | str | None, now: float
    ) -> tuple[list[posting.Row], int, float | None]:
        """The rows of messages, the bytes of all their bodies, and when the first delay is over."""
        client = _encode_client(client_uuid)
        checked = self._has_checksums()
        rows: list[posting.Row] = []
        size = 0
        due = None
        for new in messages:
            body = new.get('body', {})
            if not isinstance(body, Body):
                body = Body.of(body)
            ttl = new['ttl']
            checksum = storage_utils.get_checksum(body.value) or None if checked else None
            delayed_until = 0.0
            if delay := new.get('delay'):
                delayed_until = now + delay
                due = delayed_until if due is None else min(due, delayed_until)
            created = delayed_until if new.get('scheduled') else now
            data = encode_body(body)
            size += len(data)
            rows.append(
                (
                    *(ttl, created, created + ttl, delayed_until, client, checksum),
                    *(data, body.encoding),
                )
            )
        return rows, size, due

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
        are due. A page with long bodies ends after PAGE_BYTES, so that it may have fewer than asked
        for.

        The marker of an empty page is the given one. Nothing comes after what has not the form of
        a marker, as with upstream's drivers. Raises `MarkerNotGiven` for one of another store.
        """
        after = position_markers.decode(marker)
        if after is None:
            return iter((iter(()), None))
        client = None if echo else _encode_client(client_uuid)
        statements = _list_statements(
            client is not None,
            include_claimed,
            include_delayed,
            after.epoch is not None if after.id else None,
        )
        parameters = {
            'project': project or '',
            'queue': queue,
            'now': timeutils.utcnow_ts(microsecond=True),
            'marker': after.id,
            'epoch': after.epoch,
            'limit': limit or -1,
            'client': client,
        }
        messages, last, epoch, is_given, is_due = self._get_page(statements, parameters)
        if is_due and self._place(project, queue, parameters['now'], limit):
            messages, last, epoch, is_given, _ = self._get_page(statements, parameters)
        if marker and not is_given:
            raise MarkerNotGiven(marker)
        return iter((messages, position_markers.encode(last, epoch) if last else marker))

    def _get_page(self, statements: _ListStatements, parameters: dict[str, Any]) -> Any:
        """The result of `_get_marked_page`, within PAGE_BYTES."""
        database, as_bodies = self._database, self.driver.carries_bodies
        queue = parameters['project'], parameters['queue']
        limit = parameters['limit']
        if limit < 0 or (queue not in self._long and limit * self._longest <= PAGE_BYTES):
            *page, size = database.read(_get_marked_page, as_bodies, statements, parameters)
            if size > _SHORT_PAGE_BYTES:
                self._remember_long(queue)
            return page
        count, size = database.get_row(statements.bounds, parameters)
        bounded = {**parameters, 'limit': max(count, 1)}
        if size <= _SHORT_PAGE_BYTES:
            self._long.pop(queue, None)
            *page, _ = database.read(_get_marked_page, as_bodies, statements, bounded)
            return page
        self._remember_long(queue)
        # To copy so much is a few steps of SQLite's machine only, but takes the hub too long.
        return database.scan(_get_long_page, as_bodies, statements, bounded)

    def _remember_long(self, queue: tuple[str, str]) -> None:
        """A page of a queue is long: PERF: the hub need not try to read the next one."""
        if len(self._long) >= _MAX_LONG:
            del self._long[next(iter(self._long))]
        self._long[queue] = None

    def _place(self, project: str | None, queue: str, now: float, limit: int | None) -> bool:
        """Make messages visible that are due, as many as a page has; whether that could be done.

        Where nothing can be written, there is a list of the others still.
        """
        try:
            placed, more = 0, True
            while more and placed < (limit or 1):
                count, more = self._database.write(claiming.show_due, project or '', queue, now)
                placed += count
        except StoreUnavailable:
            return False
        return True

    def end(self, queue: str, project: str | None = None) -> str | None:
        """A marker after all that is visible in a queue now; None if that is the start."""
        now = timeutils.utcnow_ts(microsecond=True)
        row = self._database.read(spools.get_end, project or '', queue, now)
        return None if row is None else position_markers.encode(*row)

    def first(self, queue: str, project: str | None = None, sort: int = 1) -> StoredMessage:
        """The oldest message, or with `sort=-1` the newest, claimed or not; or `QueueIsEmpty`."""
        if sort not in (1, -1):
            raise ValueError('sort must be 1 (oldest first) or -1 (newest first)')
        number = self._database.read(
            spools.get_edge, project or '', queue, timeutils.utcnow_ts(microsecond=True), sort
        )
        if number is None:
            raise errors.QueueIsEmpty(queue, project)
        return self.get(queue, encode_id(number), project)

    def bulk_get(
        self, queue: str, message_ids: Sequence[str], project: str | None = None
    ) -> Iterator[StoredMessage]:
        """Those of the messages that exist, oldest first."""
        as_bodies = self.driver.carries_bodies
        parameters = {
            'project': project or '',
            'queue': queue,
            'now': timeutils.utcnow_ts(microsecond=True),
            'ids': decode_ids(message_ids),
        }
        found = self._database.read(_get_page, as_bodies, _GET_MANY, parameters)
        return iter(apart.complete(found, self._database, project, queue, as_bodies=as_bodies))

    def delete(
        self, queue: str, message_id: str, project: str | None = None, claim: str | None = None
    ) -> None:
        """Delete a message, which may be gone already; a claimed one only by its claim.

        Raises `MessageIsClaimed`, `MessageNotClaimed`, `MessageNotClaimedBy` or
        `ClaimDoesNotExist`.
        """
        number = decode_id(message_id)
        if number is not None:
            now = timeutils.utcnow_ts(microsecond=True)
            deletion = removal.Deletion(project or '', queue, number, claim, now)
            self._database.write(removal.delete, deletion)

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
        numbers = [number for one in message_ids if (number := decode_id(one)) is not None]
        if numbers:
            now = timeutils.utcnow_ts(microsecond=True)
            deletions = removal.Deletions(project or '', queue, numbers, claim_ids or (), now)
            self._database.write(removal.delete_many, deletions)

    def purge(self, queue: str, project: str | None = None) -> None:
        """Delete the messages that are there now and not claimed, some in each transaction."""
        # All that was acknowledged before is committed, and what comes later has higher ids.
        last = self._database.read(removal.get_last_id)
        now = timeutils.utcnow_ts(microsecond=True)
        rest = removal.Purge(project or '', queue, last, now)
        while self._database.write(removal.purge, rest):
            pass

    def pop(self, queue: str, limit: int, project: str | None = None) -> Sequence[StoredMessage]:
        """Take up to `limit` messages that are not claimed from the front of the queue.

        Those that have been claimed as often as the queue allows go to its dead letter queue.
        """

        def work(manner: claiming.Manner, *dead_letters: DeadLetters | None) -> claiming.Attempt:
            now = timeutils.utcnow_ts(microsecond=True)
            attempt: claiming.Attempt = self._database.write(
                removal.pop, project or '', queue, now, limit, manner, *dead_letters
            )
            return attempt

        taken = self.driver.take(queue, project, limit, work)
        if taken.page is None:
            return []
        if taken.token is not None:
            return self._read_held(queue, project, taken.page, taken.token)

        def give_back(popped: list[StoredMessage]) -> None:
            self.restore(queue, popped, project)

        as_bodies = self.driver.carries_bodies
        return [*read_taken(taken.page, give_back, queue, project, as_bodies=as_bodies)]

    def _read_held(
        self, queue: str, project: str | None, page: bytes, token: str
    ) -> Sequence[StoredMessage]:
        """Read the messages that a lease holds for a pop, and then remove them.

        However this ends, what is not given back is not lost: the lease ends, and they are free.
        """
        database, as_bodies = self._database, self.driver.carries_bodies
        with apart.giving_back(database, project, queue, token):
            messages = [*apart.complete(page, database, project, queue, as_bodies=as_bodies)]
            numbers = [decode_id(one['id']) or 0 for one in messages]
            removed = database.write(removal.remove_held, project or '', queue, token, numbers)
        return [one for one, number in zip(messages, numbers, strict=True) if number in removed]

    def restore(
        self, queue: str, popped: Sequence[StoredMessage], project: str | None = None
    ) -> None:
        """Put messages that `pop` gave back in their places; `echo` no longer knows who posted."""
        now = timeutils.utcnow_ts(microsecond=True)
        rows = [
            removal.Popped(
                decode_id(one['id']) or 0,
                one['claim_count'],
                one['ttl'],
                now - one['age'],
                one.get('checksum'),
                encode_body(body),
                body.encoding,
                decode_id(one.get('position')),
                encode_object(one.get('attributes')),
                one.get('group'),
                encode_object(one.get('dead_letter')),
            )
            for one in popped
            for body in [one['body'] if isinstance(one['body'], Body) else Body.of(one['body'])]
        ]
        for step in removal.part(rows):
            self._restore(project or '', queue, step)

    def _restore(self, project: str, queue: str, step: Sequence[removal.Popped]) -> None:
        bodies = [one.body for one in step]
        if sum(map(len, bodies)) <= staging.STAGED_BYTES:
            self._database.write(removal.restore, project, queue, step)
            return
        with staging.staged(self._database, project, bodies) as staged:
            step = [one._replace(body=body) for one, body in zip(step, staged, strict=True)]
            self._database.write(removal.restore, project, queue, step)


def _extras_of(messages: Iterable[dict[str, Any]]) -> list[posting.Extras] | None:
    """The extras of each message; None where none has any, as most do."""
    for one in messages:
        if 'attributes' in one or 'group' in one:
            return [(encode_object(each.get('attributes')), each.get('group')) for each in messages]
    return None


def _encode_client(client: uuid.UUID | str | None) -> bytes | None:
    if client is None:
        return None
    return (client if isinstance(client, uuid.UUID) else uuid.UUID(client)).bytes


# Pages are taken apart where they are read: long ones by a reading thread, which lets the hub run
# between two bodies.
def _get_page(
    connection: sqlite3.Connection, as_bodies: bool, statement: str, parameters: dict[str, Any]
) -> apart.Found:
    document, _ = connection.execute(statement, parameters).fetchone()
    return apart.find(document, as_bodies=as_bodies)


def _longest_post(conf: cfg.ConfigOpts) -> int:
    """How long a post may be, in bytes, where that is configured."""
    try:
        return int(conf.transport.max_messages_post_size)
    except cfg.NoSuchOptError:
        return 0


class _ListStatements(NamedTuple):
    """See `_list_statements`."""

    page: str
    bounds: str
    rows: str
    marks: str


def _get_marked_page(
    connection: sqlite3.Connection,
    as_bodies: bool,
    statements: _ListStatements,
    parameters: dict[str, Any],
) -> tuple[Collection[StoredMessage], int, str, int, int, int]:
    document, *rest = connection.execute(statements.page, parameters).fetchone()
    last, epoch, is_given, is_due = rest
    messages = read_page(document, as_bodies=as_bodies)
    return messages, last, epoch, is_given, is_due, len(document)


def _get_long_page(
    connection: sqlite3.Connection,
    as_bodies: bool,
    statements: _ListStatements,
    parameters: dict[str, Any],
) -> tuple[Collection[StoredMessage], int, str, int, int]:
    """The same of a long page. PERF: the interpreter is not kept while all of it is copied."""
    connection.execute('BEGIN')
    try:
        rows = connection.execute(statements.rows, parameters).fetchall()
        bodies = [
            long_bodies.read(connection, number) if body is None else memoryview(body)
            for _, _, body, number in rows
        ]
        last = rows[-1][0] if rows else None
        last, epoch, is_given, is_due = connection.execute(
            statements.marks, {**parameters, 'last': last}
        ).fetchone()
    finally:
        if connection.in_transaction:
            connection.execute('ROLLBACK')
    document = join_heads(head for _, head, _, _ in rows)
    messages = read_page(document, bodies, as_bodies=as_bodies)
    return messages, last, epoch, is_given, is_due


@functools.cache
def _list_statements(
    others_only: bool, include_claimed: bool, include_delayed: bool, has_epoch: bool | None
) -> _ListStatements:
    """SQL for a page, for the number and the bytes of its messages within PAGE_BYTES, for a page as
    rows, and for what is known beside it, with the `:last` position of these rows.

    The page of messages after `:marker`, the marker of its last one with its epoch, whether
    `:marker` is valid, and whether there are messages that are due.

    has_epoch: whether the marker is to be checked with an `:epoch`, without (False), or not at all.

    The free messages are one branch. The next is, with `include_claimed`, all the held ones, and
    otherwise those whose claim has expired without having been released yet. With `include_delayed`
    the delayed ones are the third.
    """
    after = epochs.POSITION if has_epoch is False else ':marker'
    conditions = f'm.position > {after} AND m.expires > :now'
    if others_only:
        conditions += ' AND m.client IS NOT :client'

    def find(columns: Callable[[str], str]) -> str:
        found = f"""SELECT m.position AS position, {columns('NULL')}
            FROM messages m INDEXED BY messages_free
            WHERE m.spool = {SPOOL} AND m.claim IS NULL AND m.delayed_until = 0 AND {conditions}"""
        if include_claimed:
            found += f""" UNION ALL SELECT m.position AS position, {columns('c.token')}
                FROM messages m INDEXED BY messages_held_in_order {_ACTIVE_CLAIM}
                WHERE m.spool = {SPOOL} AND m.claim IS NOT NULL AND {conditions}"""
        else:
            found += f""" UNION ALL SELECT m.position AS position, {columns('NULL')}
                FROM claims c INDEXED BY claims_of_spool
                CROSS JOIN messages m INDEXED BY messages_held ON m.claim = c.id
                WHERE c.spool = {SPOOL} AND c.expires <= :now AND c.retry IS NULL
                    AND {conditions}"""
        if include_delayed:
            found += f""" UNION ALL SELECT m.position AS position, {columns('NULL')}
                FROM messages m INDEXED BY messages_delayed
                WHERE m.spool = {SPOOL} AND m.delayed_until > 0 AND {conditions}"""
        return f'{found} ORDER BY position LIMIT :limit'

    is_given = '1' if has_epoch is None else epochs.IS_GIVEN[has_epoch]
    marks = f"""last, {epochs.OF_ID.format(id='last')}, {is_given},
        {delays.IS_DUE.format(spool=SPOOL)} OR {claiming.HAS_ENDED_RETRIES.format(spool=SPOOL)}"""
    marked_page = f"""SELECT document, {marks}
        FROM (SELECT document, ifnull(last, {after}) AS last FROM ({page(find(whole_message))}))"""
    sizes = find(lambda _: steps.SIZE)
    bounds = steps.first(
        sizes, 'position', most=str(PAGE_BYTES), columns='count(*), ifnull(sum(size), 0)'
    )
    return _ListStatements(
        marked_page,
        bounds,
        find(row),
        f'SELECT {marks} FROM (SELECT ifnull(:last, {after}) AS last)',
    )


_GET_MANY = page(f"""SELECT m.position AS position, {message('c.token')}
    FROM messages m {_ACTIVE_CLAIM}
    WHERE m.id IN (SELECT value FROM json_each(:ids)) AND m.spool = {SPOOL} AND m.expires > :now
    ORDER BY m.position""")
