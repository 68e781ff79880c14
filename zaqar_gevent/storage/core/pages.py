"""Pages of messages, each as one value, for stores that keep messages in numbered rows.

A page is a JSON array of what is known of each message, a line break, and the bodies of all of
them, one behind the other, in whatever encoding each has. So nothing looks for the ends of bodies.

The id of a message is the number of its row.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from zaqar_gevent import bodies
from zaqar_gevent.bodies import (
    Body,
    Data,
    Encoding,
    UncheckedBody,
    check_syntax,
    count_elements,
)
from zaqar_gevent.storage.errors import UndecodableValue
from zaqar_gevent.storage.interface import AnsweredMessage, StoredMessage, StoredPage

_ID_LENGTH = 16

# The texts of a longer page are checked one by one, rather than copied.
_SHORT_PAGE = 16 * 1024
_END_OF_HEADS = b'\n'
# PERF: members of an enumeration are looked up by its metaclass.
_ENCODINGS = {encoding.value: encoding for encoding in Encoding}
_ENCRYPTED = Encoding.ENCRYPTED


def encode_id(number: int) -> str:
    """The public form of a row's id: lowercase hexadecimal that sorts like the number."""
    return f'{number:016x}'


def decode_id(public: Any) -> int | None:
    """The number of a public id, or None for what is not one."""
    if not isinstance(public, str) or len(public) != _ID_LENGTH:
        return None
    try:
        number = int(public, 16)
    except ValueError:
        return None
    # There is one way to write it; Python reads others, too.
    return number if number < 1 << 63 and encode_id(number) == public else None


_KNOWN_AS = ':id'


def encode_attributes(attributes: dict[str, str] | None, known_as: str | None = None) -> str | None:
    """What is stored of the attributes of a message.

    known_as: the id that clients know, where a message came with its queue from a store whose ids
    are no numbers. No attribute has such a name.
    """
    if known_as is not None:
        attributes = {**(attributes or {}), _KNOWN_AS: known_as}
    return encode_object(attributes)


def decode_attributes(stored: str) -> tuple[dict[str, str], str | None]:
    """Attributes, and the id that clients know, if it is stored."""
    attributes: dict[str, str] = msgspec.json.decode(stored)
    return attributes, attributes.pop(_KNOWN_AS, None)


def find_known_as(attributes: str | None) -> str | None:
    """The id that clients know of a message, by its stored attributes."""
    return None if attributes is None else decode_attributes(attributes)[1]


def encode_object(members: dict[str, Any] | None) -> str | None:
    """The stored form of an object that most messages do not have."""
    return _encode_json(members).decode() if members else None


class _Head(msgspec.Struct, array_like=True, gc=False):
    """A message in a page. size: bytes of its body."""

    id: str
    age: int
    ttl: int
    claim_count: int
    claim_id: str | None
    checksum: str | None
    placed: int | None
    encoding: int
    size: int
    attributes: str | None = None
    group: str | None = None
    dead_letter: str | None = None


_encode_json = msgspec.json.Encoder().encode
_decode_heads = msgspec.json.Decoder(list[_Head]).decode
_split_array = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
# An array in MsgPack, with its number of elements in 32 bits.
_ARRAY, _array_head = 0xDD, struct.Struct('>BI').pack


EMPTY_PAGE = b'[]' + _END_OF_HEADS

APART_BYTES = 128 * 1024
"""Bodies of at least so many bytes may be missing in a page; see `ReadApart`."""

ReadApart = Callable[[Mapping[str, int]], Mapping[str, memoryview]]
"""Reads the long bodies that a page does not have.

Called with the ids of their messages and the bytes of each. Messages whose bodies it does not give
do not exist any more.
"""


class Page(StoredPage):
    """The messages of a page. One that was delayed has its `position`; that of any other is its id.

    apart: the bodies, where the page is without them. is_checked: whether bodies are checked; very
        long ones never are. read_apart: reads the long bodies where the page is without them.

    Raises `UndecodableValue`, and what `read_apart` raises.
    """

    __slots__ = ('_encoding', '_heads', '_stored')

    def __init__(
        self,
        document: bytes,
        apart: Sequence[memoryview] | None = None,
        *,
        is_checked: bool = True,
        read_apart: ReadApart | None = None,
    ) -> None:
        end = document.find(_END_OF_HEADS) + 1
        view = memoryview(document)
        try:
            heads = _decode_heads(view[:end])
            if apart is None:
                stored, has_all = _split(view, end, heads)
                if not has_all and read_apart is not None:
                    heads, apart = _complete(view, end, heads, read_apart)
            if apart is not None:
                stored = apart
            self._heads = heads
            is_long = apart is not None or len(document) >= bodies.VERY_LONG_BYTES
            # Of all bodies, if they have been checked together; otherwise each is a `Body`.
            self._encoding = None if is_long or not is_checked else _check_together(heads, stored)
            self._stored: Sequence[Any] = stored
            if self._encoding is None:
                decode = _decode_or_leave if is_checked else _leave
                self._stored = [
                    decode(_ENCODINGS[head.encoding], body)
                    for head, body in zip(heads, stored, strict=True)
                ]
        except (ValueError, KeyError, msgspec.DecodeError) as error:
            raise UndecodableValue(str(error)) from None

    def __len__(self) -> int:
        return len(self._heads)

    def __iter__(self) -> Iterator[StoredMessage]:
        encoding = self._encoding
        try:
            for head, stored in zip(self._heads, self._stored, strict=True):
                yield _message_of(head, stored if encoding is None else Body(encoding, stored))
        except (ValueError, msgspec.DecodeError) as error:
            raise UndecodableValue(str(error)) from None

    def in_answer(
        self, encoding: Encoding, *, counted: bool = False
    ) -> list[AnsweredMessage] | None:
        if encoding is not self._encoding:
            return None
        messages: list[AnsweredMessage] = []
        for head, stored in zip(self._heads, self._stored, strict=True):
            if head.checksum or head.attributes or head.group or head.dead_letter:
                return None
            count = max(0, head.claim_count - 1) if counted else msgspec.UNSET
            body = msgspec.Raw(stored)
            messages.append(
                AnsweredMessage(head.id, head.claim_id, head.ttl, head.age, body, count)
            )
        return messages


def decode_page(document: bytes, apart: Sequence[memoryview] | None = None) -> list[StoredMessage]:
    """The messages of a page, with a `Body` each; see `Page`."""
    return list(Page(document, apart))


def _message_of(head: _Head, body: Body) -> StoredMessage:
    found: StoredMessage = {
        'id': head.id,
        'age': head.age,
        'ttl': head.ttl,
        'claim_count': head.claim_count,
        'claim_id': head.claim_id,
        'body': body,
    }
    if head.checksum is not None:
        found['checksum'] = head.checksum
    if head.placed is not None:
        found['position'] = encode_id(head.placed)
    _add_extras(found, head)
    return found


def _add_extras(found: StoredMessage, head: _Head) -> None:
    """Add what most messages do not have."""
    if head.attributes is not None:
        attributes, known_as = decode_attributes(head.attributes)
        if attributes:
            found['attributes'] = attributes
        if known_as is not None:
            found['known_as'] = known_as
    if head.group is not None:
        found['group'] = head.group
    if head.dead_letter is not None:
        found['dead_letter'] = msgspec.json.decode(head.dead_letter)


def _split(view: memoryview, end: int, heads: Sequence[_Head]) -> tuple[Sequence[memoryview], bool]:
    """The bodies of a page, which begin at `end`, and whether it has all of them."""
    stored = []
    for head in heads:
        begin, end = end, end + head.size
        stored.append(view[begin:end])
    return stored, end <= len(view)


def _complete(
    view: memoryview, end: int, heads: Sequence[_Head], read_apart: ReadApart
) -> tuple[list[_Head], list[memoryview]]:
    """The messages of a page without its long bodies, and the bodies of all of them."""
    found = read_apart({head.id: head.size for head in heads if head.size >= APART_BYTES})
    complete, stored = [], []
    for head in heads:
        if head.size < APART_BYTES:
            begin, end = end, end + head.size
            body: memoryview | None = view[begin:end]
        else:
            body = found.get(head.id)
        if body is not None:
            complete.append(head)
            stored.append(body)
    if end != len(view):
        raise ValueError('a body is missing')
    return complete, stored


def _check_together(heads: Sequence[_Head], stored: Sequence[memoryview]) -> Encoding | None:
    """The encoding of all bodies of a page, if they have the same, and are valid together.

    PERF: one call for all costs less than one each.
    """
    found = {head.encoding for head in heads}
    common = found.pop() if len(found) == 1 else None
    if common is None or common not in _ARE_VALID or not _ARE_VALID[common](stored):
        return None
    return _ENCODINGS[common]


def _are_json(stored: Sequence[memoryview]) -> bool:
    """Whether these are so many texts in JSON."""
    try:
        if sum(map(len, stored)) <= _SHORT_PAGE:
            return count_elements(b'[%b]' % b','.join(stored)) == len(stored)
        for text in stored:
            check_syntax(text)
        return True
    except (ValueError, RuntimeError, msgspec.DecodeError):
        # One is in MsgPack, or damaged, or has a number that only a stricter check refuses.
        return False


def _are_msgpack(stored: Sequence[memoryview]) -> bool:
    """The same of values in MsgPack."""
    try:
        return len(_split_array(_array_head(_ARRAY, len(stored)) + b''.join(stored))) == len(stored)
    except msgspec.DecodeError:
        return False


_ARE_VALID = {Encoding.JSON.value: _are_json, Encoding.MSGPACK.value: _are_msgpack}


def join_heads(documents: Iterable[str]) -> bytes:
    """A page without bodies, of what is known of each message, in JSON."""
    return b'[%b]%b' % (','.join(documents).encode(), _END_OF_HEADS)


def read_page(
    document: bytes,
    apart: Sequence[memoryview] | None = None,
    *,
    as_bodies: bool,
    read_apart: ReadApart | None = None,
) -> Collection[StoredMessage]:
    """The messages of a page, with each body as a `Body` or as its value; see `Page`."""
    page = Page(document, apart, read_apart=read_apart)
    if as_bodies:
        return page
    messages = list(page)
    try:
        for one in messages:
            one['body'] = one['body'].value
    except (ValueError, msgspec.DecodeError) as error:
        raise UndecodableValue(str(error)) from None
    return messages


def read_taken(
    document: bytes,
    give_back: Callable[[list[StoredMessage]], None],
    queue: str,
    project: str | None,
    *,
    as_bodies: bool,
) -> Collection[StoredMessage]:
    """The same of messages that were taken out of a queue.

    give_back: called with all of them before `UndecodableValue` is raised.
    """
    try:
        return read_page(document, as_bodies=as_bodies)
    except UndecodableValue as error:
        give_back(list(Page(document, is_checked=False)))
        raise error.in_queue(queue, project) from None


def encode_body(body: Body) -> Data:
    """The stored form of a body: an encrypted one is a text in JSON."""
    if body.encoding is _ENCRYPTED:
        return b'"%b"' % bytes(body.data)
    # PERF: what SQLite does not know takes it 7 us to look for an adapter.
    return memoryview(body.data) if type(body.data) is msgspec.Raw else body.data


def _decode_or_leave(encoding: Encoding, stored: memoryview) -> Body:
    if len(stored) < bodies.VERY_LONG_BYTES or encoding is Encoding.ENCRYPTED:
        return decode_body(encoding, stored)
    return UncheckedBody(encoding, stored)


def _leave(encoding: Encoding, stored: memoryview) -> Body:
    """A body that is not looked into."""
    return UncheckedBody(encoding, stored[1:-1] if encoding is Encoding.ENCRYPTED else stored)


def decode_body(encoding: Encoding, stored: memoryview) -> Body:
    """The body of which this is stored.

    Raises `ValueError` or `msgspec.DecodeError` for what would break the answer it is put into.
    """
    bodies.check(encoding, stored)
    if encoding is Encoding.ENCRYPTED:
        stored = stored[1:-1]
    return Body(encoding, stored)
