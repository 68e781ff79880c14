"""Posts as they are sent, read without making values of the bodies of their messages.

Only what is as it should be is read here. Whatever is not is left to the decoder of all other
requests, which says what is wrong.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import UNSET, Raw, UnsetType

from zaqar_gevent.api.messages import NewMessage
from zaqar_gevent.bodies import Body, Encoding

NAME = b'message_post'
"""A text that every post contains."""

Action = Literal['message_post', 'topic_message_post']
"""The names of the operations that post."""

# PERF: members of an enumeration are looked up by its metaclass.
_JSON, _MSGPACK = Encoding.JSON, Encoding.MSGPACK

_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class _Message(msgspec.Struct):
    body: Raw
    ttl: int | UnsetType = UNSET
    delay: int | UnsetType | None = UNSET
    attributes: dict[str, str] | UnsetType | None = UNSET
    deliver_at: float | str | UnsetType | None = UNSET
    group: str | UnsetType | None = UNSET


class _KnownMessage(_Message, forbid_unknown_fields=True):
    pass


class Post(msgspec.Struct):
    """The arguments of a post. `messages` are checked, the others not yet."""

    messages: list[_Message]
    queue_name: Any = UNSET
    topic_name: Any = UNSET
    post_id: Any = UNSET

    def arguments(self, *, binary: bool) -> dict[str, Any]:
        """The arguments by name, each message with its body in the encoding of the request."""
        encoding = _MSGPACK if binary else _JSON
        named: dict[str, Any] = {
            'messages': [
                NewMessage(
                    Body(encoding, one.body),
                    one.ttl,
                    None if one.delay is UNSET else one.delay,
                    None if one.attributes is UNSET else one.attributes,
                    None if one.deliver_at is UNSET else one.deliver_at,
                    None if one.group is UNSET else one.group,
                )
                for one in self.messages
            ]
        }
        if self.queue_name is not UNSET:
            named['queue_name'] = self.queue_name
        if self.topic_name is not UNSET:
            named['topic_name'] = self.topic_name
        if self.post_id is not UNSET:
            named['post_id'] = self.post_id
        return named

    def put_back(self, cut_out: dict[int, memoryview]) -> None:
        """Have the bodies that were cut out of the document before it was read."""
        for index, body in cut_out.items():
            self.messages[index].body = Raw(body)


class KnownPost(Post, forbid_unknown_fields=True):
    """A post that is complete in this form: it is as it was sent when it is encoded again."""

    messages: list[_KnownMessage]  # type: ignore[assignment]


class Decoder:
    """Reads one type of structure in either encoding."""

    def __init__(self, kind: type[Any]) -> None:
        self._json = msgspec.json.Decoder(kind).decode
        self._msgpack = msgspec.msgpack.Decoder(kind).decode

    def read(self, document: bytes | Raw, *, binary: bool) -> Any:
        """The structure; None where the document is not one."""
        try:
            return (self._msgpack if binary else self._json)(document)
        except _UNREADABLE:
            return None


read_post = Decoder(Post).read


def put_back(document: Any, cut_out: dict[int, memoryview], *, binary: bool) -> None:
    """Have the bodies that were cut out of a document, which is a post or has one as its `body`."""
    encoding = Encoding.MSGPACK if binary else Encoding.JSON
    post = document if 'messages' in document else document['body']
    for index, body in cut_out.items():
        post['messages'][index]['body'] = Body(encoding, body)
