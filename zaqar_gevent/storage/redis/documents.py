"""Messages as scripts return them, and as the rest of the server wants them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import msgspec

from zaqar_gevent.bodies import Encoding, body_of
from zaqar_gevent.storage.errors import UndecodableValue
from zaqar_gevent.storage.interface import AnsweredMessage, StoredMessage, StoredPage
from zaqar_gevent.storage.own_drivers import describe_edge
from zaqar_gevent.storage.redis import bodies

Fields = list[Any]
"""A message as it is stored, with whatever is in it; see `fields_of` in shared.lua."""


class _Message(msgspec.Struct):
    """A message as `present` in shared.lua writes it: with its `body`, or the `spelling` of that.

    extras: what upstream's messages do not have.
    """

    id: str
    age: Any
    ttl: Any
    claim_count: Any
    claim_id: str | None
    body: Any = msgspec.UNSET
    spelling: bytes | msgspec.UnsetType = msgspec.UNSET
    checksum: Any = msgspec.UNSET
    extras: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


_decode = msgspec.msgpack.Decoder(list[_Message]).decode
_UNSET = msgspec.UNSET


class Page(StoredPage):
    """The messages of scripts' answers (see `paginate` in shared.lua); `ttl`, `age` in seconds.

    last_id: the id of the last message; None where there is none.
    """

    __slots__ = ('_messages',)

    def __init__(self, packed: bytes | None = None) -> None:
        self._messages: list[_Message] = []
        if packed is not None:
            self.add(packed)

    def add(self, packed: bytes) -> None:
        """Add the messages of another answer; raises `UndecodableValue`."""
        try:
            self._messages += _decode(packed)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise UndecodableValue(str(error)) from None

    def check_spellings(self) -> None:
        """Raise `UndecodableValue` where the spelling of a body cannot be read."""
        for one in self._messages:
            if one.spelling is not msgspec.UNSET:
                bodies.read_spelling(one.spelling)

    @property
    def last_id(self) -> str | None:
        return self._messages[-1].id if self._messages else None

    def __len__(self) -> int:
        return len(self._messages)

    def __iter__(self) -> Iterator[StoredMessage]:
        return map(_with_body, self._messages)

    def with_values(self) -> list[StoredMessage]:
        """The messages, each with the value of its body, and `bytes` for an encrypted one."""
        return [{**one, 'body': one['body'].value} for one in self]

    def in_answer(
        self, encoding: Encoding, *, counted: bool = False
    ) -> list[AnsweredMessage] | None:
        messages: list[AnsweredMessage] = []
        for one in self._messages:
            body = one.body
            # An encrypted body is bytes.
            if (
                body is _UNSET
                or type(body) is bytes
                or one.extras is not _UNSET
                or one.checksum is not _UNSET
            ):
                return None
            count = max(0, one.claim_count - 1) if counted else _UNSET
            messages.append(AnsweredMessage(one.id, one.claim_id, one.ttl, one.age, body, count))
        return messages


def _with_body(one: _Message) -> StoredMessage:
    """A message with its `Body`."""
    spelling = one.spelling
    body = body_of(one.body) if spelling is msgspec.UNSET else bodies.read_spelling(spelling)
    message: StoredMessage = {
        'id': one.id,
        'age': one.age,
        'ttl': one.ttl,
        'claim_count': one.claim_count,
        'claim_id': one.claim_id,
        'body': body,
    }
    if one.checksum is not _UNSET:
        message['checksum'] = one.checksum
    if one.extras is not _UNSET:
        _add_extras(message, one.extras)
    return message


def present_fields(stored: list[Fields], now: int) -> list[StoredMessage]:
    """Messages that no claim holds, each with its `Body`; raises `UndecodableValue`."""
    return [_present_one(fields, now) for fields in stored]


def restoring(fields: Fields) -> Fields:
    """The script's arguments to put such a message back as it was, and for as long."""
    id_, body, _, created, _, _, count, checksum, expires, _, spelling, extras = fields
    ttl = int(float(expires)) - int(float(created))
    return [id_, ttl, created, count or 0, body, spelling or b'', checksum or b'', extras or b'']


def _present_one(fields: Fields, now: int) -> StoredMessage:
    id_, body, ttl, created, _, _, count, checksum, _, _, spelling, extras = fields
    message: StoredMessage = {
        'id': id_.decode(),
        'age': max(0, now - int(float(created))),
        'ttl': int(float(ttl)),
        'claim_count': int(count or 0),
        'claim_id': None,
    }
    try:
        message['body'] = (
            bodies.read_spelling(spelling) if spelling else body_of(bodies.unpack(body))
        )
        if checksum:
            message['checksum'] = checksum.decode()
        if extras:
            _add_extras(message, bodies.unpack(extras))
    except (UndecodableValue, ValueError, TypeError) as error:
        raise UndecodableValue(f'message {message["id"]}: {error}') from None
    return message


def _add_extras(message: StoredMessage, extras: Any) -> None:
    message.update(extras)
    if 'dead_letter' in message:
        message['dead_letter'].setdefault('reason', None)


def describe_first(page: Collection[StoredMessage], now: int) -> StoredMessage:
    """The only message of a page, with `created` in ISO 8601."""
    [message] = page
    return {**message, **describe_edge(message['id'], now - message['age'], now)}
