"""Requests, answers and pushes of one WebSocket connection, without I/O.

A connection of each kind (threads, asyncio) is an `Exchange` that has a way to wait.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, Protocol

from zaqar_gevent.client import codecs
from zaqar_gevent.client.engines import MESSAGE_TOO_BIG, Payload
from zaqar_gevent.client.envelopes import Answered, Envelope
from zaqar_gevent.client.errors import AccessEnded, from_end
from zaqar_gevent.client.links import Answer, Capabilities

LOG = logging.getLogger(__name__)

# The kinds of pushes that are no messages, by their `Message_Type` in upstream's envelope.
_PUSH_KINDS = {'UnsubscribeConfirmation': 'ended'}

OnAnswer = Callable[[Answer | None], None]


class PushHandler(Protocol):
    """Handles the pushes of one subscription or consumer. It must not wait."""

    def on_message(self, document: dict[str, Any], size: int) -> None:
        """A message was pushed; `size` in bytes."""
        ...

    def on_marker(self, marker: str) -> None:
        """Up to this marker there is nothing more for the subscription, which has a filter."""
        ...

    def on_paused(self) -> None:
        """The server pushes no more until it is asked to."""
        ...

    def on_ended(self, error: AccessEnded | None) -> None:
        """The server has ended the subscription or consumer; `error` if it cannot be made anew."""
        ...

    def on_disconnect(self) -> None:
        """The connection has ended."""
        ...


class PendingRequest:
    """A request that has no answer yet.

    size: in bytes. on_answer: called with the answer, before anything that follows it is read.
    """

    __slots__ = ('on_answer', 'size')

    def __init__(self, size: int, on_answer: OnAnswer | None) -> None:
        self.size = size
        self.on_answer = on_answer

    def resolve(self, answer: Answer | None) -> None:
        """The answer has come; None if there will be none."""
        if self.on_answer is not None:
            self.on_answer(answer)


class Exchange:
    """Requests that wait for answers, and the handlers of pushes.

    capabilities: what the server says that it can do.
    reconnect_after_ms: when to reconnect, if the server has said so.
    """

    def __init__(
        self, envelope: Envelope, *, binary: bool, default: Callable[[Any], Any] | None = None
    ) -> None:
        self._envelope = envelope
        self._binary = binary
        self._default = default
        self._idents = itertools.count(1)
        self._pending: dict[int, PendingRequest] = {}
        self._push_handlers: dict[str, PushHandler] = {}
        self.capabilities = Capabilities()
        self.reconnect_after_ms: int | None = None

    @property
    def kind(self) -> Literal['zaqar.v2', 'default']:
        """Which envelope is spoken."""
        return self._envelope.kind

    def _encode(
        self, ident: int, action: str, arguments: Mapping[str, Any], headers: Mapping[str, str]
    ) -> bytes:
        document = self._envelope.wrap(ident, action, arguments, headers)
        return codecs.encode(document, binary=self._binary, default=self._default)

    def _refusal_of(self, data: bytes) -> Answer | None:
        """The answer to a request that is longer than the server has said it takes."""
        if self.kind != 'default' and len(data) > self.capabilities.max_message_size:
            limit = self.capabilities.max_message_size
            return too_long(len(data), f'at most {limit} are allowed')
        return None

    def _dispatch(self, messages: Iterable[Payload]) -> None:
        """Give answers to who asked, and pushes to who gets them."""
        for data, binary in messages:
            document = self._envelope.unwrap(codecs.decode(data, binary=binary))
            if isinstance(document, Answered):
                self._answer(document)
            else:
                self._push(document, len(data))

    def _answer(self, answered: Answered) -> None:
        ident = answered.ident
        if ident is None:
            ident = self._ident_without(answered.answer)
        pending = self._pending.pop(ident, None)
        if pending is not None:
            pending.resolve(answered.answer)

    def _ident_without(self, answer: Answer) -> int:
        """The id of the request that an answer without one is for; 0 if that is not known.

        Upstream's server answers in order. In `zaqar.v2` such an answer refuses a frame that could
        not be read: if several requests wait, none may be given the refusal of another. They get
        their own answers, and the refused one times out.
        """
        waiting = tuple(self._pending)
        if self.kind == 'default':
            return next(iter(waiting), 0)
        if len(waiting) == 1 and answer.status >= 400:
            return waiting[0]
        LOG.warning(
            'The server sent an answer without an id (status %d) while %d requests waited; it is '
            'given to none of them',
            answer.status,
            len(waiting),
        )
        return 0

    def _push(self, document: dict[str, Any], size: int) -> None:
        kind = document.get('push') or _PUSH_KINDS.get(document.get('Message_Type', ''), 'message')
        if kind == 'closing':
            after = document.get('reconnect_after_ms')
            self.reconnect_after_ms = after if isinstance(after, int) and after >= 0 else 0
            return
        name = self._name_of(document)
        handler = self._push_handlers.get(name)
        if handler is None:
            return
        if kind == 'message':
            handler.on_message(document, size)
        elif kind == 'marker':
            handler.on_marker(str(document['marker']))
        elif kind == 'paused':
            handler.on_paused()
        elif kind == 'ended':
            self._push_handlers.pop(name, None)
            told = document if 'push' in document else document.get('body') or {}
            handler.on_ended(from_end(str(told.get('reason')), str(told.get('description', ''))))

    def _name_of(self, document: dict[str, Any]) -> str:
        names = ('subscription_id', 'consumer_id')
        if self.kind == 'default':
            names = ('queue_name', '')
        return str(document.get(names[0]) or document.get(names[1]))

    def _abandon(
        self, pending: list[PendingRequest], handlers: list[PushHandler], *, refused_for_size: bool
    ) -> None:
        """The connection has ended: tell who waits, and who gets pushes.

        If the server closed it over the length of a request, that is the longest one: where
        another one is too long, so is this.
        """
        refused = max(pending, key=lambda one: one.size, default=None) if refused_for_size else None
        for one in pending:
            reason = f'the server closed the connection over it ({MESSAGE_TOO_BIG})'
            one.resolve(too_long(one.size, reason) if one is refused else None)
        for handler in handlers:
            handler.on_disconnect()


def too_long(size: int, reason: str) -> Answer:
    """The answer to a request that is longer than the server takes."""
    description = f'The request has {size} bytes as a WebSocket message; {reason}.'
    title = 'Request body too large'
    return Answer(413, {'code': 'body_too_large', 'title': title, 'description': description})
