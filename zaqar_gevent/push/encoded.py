"""Messages in the forms in which they are pushed, encoded once for all subscribers."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from zaqar_gevent.api import documents
from zaqar_gevent.api.messages import EXTENSIONS
from zaqar_gevent.api.push import FrameHead
from zaqar_gevent.push.tail import Entry

_MEMBERS = 5
_MSGPACK_MAP = 0x80
# Messages that are written to one client together, in bytes; a longer one is alone.
_TOGETHER_BYTES = 64 * 1024


def prefix_of(subscription_id: str, *, binary: bool) -> bytes:
    """The first members of a push of `zaqar.v2`, which differ between subscribers."""
    members = {'push': 'message', 'subscription_id': subscription_id}
    if binary:
        # A map of a few members is one byte, the number in it, and then they follow each other.
        return bytes([_MSGPACK_MAP | _MEMBERS]) + documents.encode_msgpack(members)[1:]
    return documents.encode_json(members)[:-1]


class EncodedMessage:
    """One message of a queue, encoded when a form is first needed."""

    def __init__(self, queue_name: str, entry: Entry) -> None:
        self.id = str(entry.message['id'])
        self.marker = entry.marker
        self._queue_name = queue_name
        self._message = entry.message
        self._forms: dict[tuple[bool, bool, bool], bytes] = {}

    @property
    def attributes(self) -> Mapping[str, str] | None:
        """Those of the message, if it has any."""
        return self._message.get('attributes')

    def default(self, *, binary: bool, extended: bool = False) -> bytes:
        """The push of the default envelope, upstream's.

        extended: whether with the members that upstream's messages do not have.
        """
        form = (False, binary, extended)
        if form not in self._forms:
            document = {
                'body': self._message['body'],
                'ttl': self._message['ttl'],
                'queue_name': self._queue_name,
                'Message_Type': 'Notification',
            }
            if extended:
                message = self._message
                document.update({name: message[name] for name in EXTENSIONS if name in message})
            self._forms[form] = documents.encode(document, binary=binary)
        return self._forms[form]

    def suffix(self, *, binary: bool) -> bytes:
        """All of a push of `zaqar.v2` that follows its prefix."""
        form = (True, binary, True)
        if form not in self._forms:
            rest: dict[str, Any] = {
                'queue_name': self._queue_name,
                'marker': self.marker,
                'message': self._message,
            }
            if binary:
                self._forms[form] = documents.encode_msgpack(rest)[1:]
            else:
                self._forms[form] = b',' + documents.encode_json(rest)[1:]
        return self._forms[form]


class EncodedFrames(NamedTuple):
    """Frames for many subscribers.

    pieces: the prefix of each subscriber goes between them; without prefixes it is one piece.
    size: in bytes, without the heads of the frames.
    """

    pieces: list[bytes]
    size: int


class PushFormat:
    """How a message is written for all subscribers that get it in the same form.

    prefix_bytes: length of each subscriber's own prefix; None for the default envelope.
    binary: in MsgPack. extended: with the members that upstream's messages do not have, in the
        default envelope.
    """

    __slots__ = ('_binary', '_extended', '_prefix_bytes')

    def __init__(self, prefix_bytes: int | None, binary: bool, extended: bool = False) -> None:
        self._prefix_bytes = prefix_bytes
        self._extended = extended
        self._binary = binary

    def shared(self, encoded: EncodedMessage) -> bytes:
        """The part after the prefix, which is the same for all subscribers."""
        if self._prefix_bytes is None:
            return encoded.default(binary=self._binary, extended=self._extended)
        return encoded.suffix(binary=self._binary)

    def frames(self, messages: Sequence[EncodedMessage], head: FrameHead) -> EncodedFrames:
        """The frames of messages."""
        pieces = [b'']
        size = 0
        for encoded in messages:
            shared = self.shared(encoded)
            length = (self._prefix_bytes or 0) + len(shared)
            pieces[-1] += head(length, binary=self._binary)
            pieces.append(shared)
            size += length
        return EncodedFrames(pieces if self._prefix_bytes else [b''.join(pieces)], size)


format_of = functools.cache(PushFormat)
"""The form with these arguments; there is one of each, looked up for each subscriber."""


class EncodedBatch:
    """A few messages of a queue, one after the other, that are handed out together.

    PERF: for a thousand subscribers their frames are made once; one `join` puts into them what is
    the subscriber's own, and one write takes them all.

    marker: of the last one. count: how many they are.
    """

    __slots__ = ('_frames', 'count', 'marker', 'messages')

    def __init__(self, messages: Sequence[EncodedMessage]) -> None:
        self.messages = messages
        self.count = len(messages)
        self.marker = messages[-1].marker
        self._frames: dict[tuple[PushFormat, FrameHead], EncodedFrames] = {}

    def frames(self, form: PushFormat, head: FrameHead) -> EncodedFrames:
        """The frames of the messages, in order."""
        frames = self._frames.get((form, head))
        if frames is None:
            frames = self._frames[form, head] = form.frames(self.messages, head)
        return frames


def batches(messages: Iterable[EncodedMessage], form: PushFormat) -> Iterator[EncodedBatch]:
    """Messages in batches of a few, or of one long one.

    form: in which their lengths are told, so that of a subscriber.
    """
    gathered: list[EncodedMessage] = []
    size = 0
    for encoded in messages:
        length = len(form.shared(encoded))
        if gathered and size + length > _TOGETHER_BYTES:
            yield EncodedBatch(gathered)
            gathered, size = [], 0
        gathered.append(encoded)
        size += length
    if gathered:
        yield EncodedBatch(gathered)
