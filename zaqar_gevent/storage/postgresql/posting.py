"""Posts of many greenlets, sent as one statement."""

from __future__ import annotations

import hashlib
import struct
import uuid
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from oslo_utils import timeutils

from zaqar_gevent.storage.core import links
from zaqar_gevent.storage.postgresql.calls import Binary
from zaqar_gevent.storage.postgresql.wire import Row, Statement

_BYTEA = 17
_HEADER = struct.Struct('!iiIii')
_LENGTH = struct.Struct('!i')
_ALL_BINARY = 1

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode

Outcome = int | None
"""The number of the first message; None where the queue does not exist."""


class Post(NamedTuple):
    """Messages for one queue.

    heads: of each message what `post` in functions.sql wants, without the number of the post.
    bodies: as they are stored. check: whether the queue must exist in this database. post_id: what
    tells this post from others, to be remembered for `seconds`; None where nothing does. passed:
    the queues that the messages came through by webhooks.
    """

    project: str
    queue: str
    heads: list[dict[str, Any]]
    bodies: list[Any]
    check: bool
    post_id: str | None = None
    seconds: int = 0
    passed: str | None = None
    is_delayed: bool = False


class PostCall(links.Request):
    """A post on its way; see `calls.PendingCall`.

    key: of posts with the same one, a transaction has only one.
    """

    __slots__ = (
        *('attempts', 'before', 'failure', 'is_alone', 'key', 'outcome', 'post', 'rows'),
        'statement',
    )

    def __init__(self, statement: Statement, post: Post, until: float) -> None:
        self.statement = statement
        self.post = post
        self.key = None if post.post_id is None else (post.project, post.queue, post.post_id)
        self.before = None
        self.is_alone = False
        self.attempts = 0
        self.rows: list[Row] = []
        self.failure: tuple[str, str] | None = None
        self.outcome: Outcome = None
        size = sum(len(body) for body in post.bodies)
        super().__init__(size, until, is_repeatable=statement.is_repeatable)


class Merged:
    """Posts as they are sent: one call of `post` in functions.sql."""

    __slots__ = ('_posts', 'failure', 'formats', 'rows', 'statement', 'values')

    def __init__(self, posts: Sequence[PostCall]) -> None:
        self._posts = posts
        self.statement = posts[0].statement
        self.rows: list[Row] = []
        self.failure: tuple[str, str] | None = None
        now = timeutils.utcnow_ts(microsecond=True)
        rows: list[dict[str, Any]] = []
        heads: list[dict[str, Any]] = []
        bodies: list[Any] = []
        has_ids = has_delays = False
        for number, call in enumerate(posts, 1):
            post = call.post
            row: dict[str, Any] = {'p': post.project, 'q': post.queue, 'c': post.check}
            if post.post_id is not None:
                has_ids = True
                row.update(i=digest(post.post_id), f=now + post.seconds)
            if post.is_delayed:
                has_delays = True
                row.update(w=post.passed)
            rows.append(row)
            for head in post.heads:
                head['o'] = number
            heads += post.heads
            bodies += post.bodies
        self.values = [
            repr(now).encode(),
            _encode(rows),
            _encode(heads),
            encode_array(bodies),
            b't' if has_ids else b'f',
            b't' if has_delays else b'f',
        ]
        self.formats = [0, 0, 0, _ALL_BINARY, 0, 0]

    def distribute(self) -> None:
        """Give each post its outcome."""
        facts = self.rows[0][0]
        assert facts is not None
        base, made = _decode(facts)
        place = base + 1
        for call, first in zip(self._posts, made, strict=True):
            call.outcome = None if first is None else first or place
            place += len(call.post.heads)


def merge(calls: Sequence[Any]) -> Sequence[Any]:
    """What is sent of some posts."""
    return (Merged(calls),)


def encode_array(values: Sequence[Any]) -> Binary:
    """An array of `bytea` in PostgreSQL's binary format. PERF: nothing is quoted."""
    parts: list[Any] = [_HEADER.pack(1, 0, _BYTEA, len(values), 1)]
    for value in values:
        parts += (_LENGTH.pack(len(value)), value)
    return Binary(b''.join(parts))


def digest(post_id: str) -> str:
    """The digest that is stored of a post's id, which may have any length."""
    made = hashlib.blake2b(post_id.encode('utf-8', 'surrogatepass'), digest_size=16)
    return str(uuid.UUID(bytes=made.digest()))
