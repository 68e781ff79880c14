"""An operation that may take several attempts, because connections die; without I/O."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from zaqar_gevent.client.errors import OutcomeUnknown, Unsupported
from zaqar_gevent.client.links import Broken, Capabilities
from zaqar_gevent.client.operations import OPERATIONS
from zaqar_gevent.client.random_pool import RandomPool

_POSTS = ('message_post', 'topic_message_post')
# Members of messages that upstream's servers ignore.
_EXTENSIONS = ('attributes', 'deliver_at', 'group')
_random_parts = RandomPool(10)


class Attempt:
    """One operation and whether it may be asked again.

    A post gets an id if the server recognizes repeated posts by it; then it may be repeated for as
    long as the server does.
    """

    __slots__ = ('_arguments', '_known_seconds', '_post_id', '_sent_at', 'action')

    def __init__(self, action: str, arguments: dict[str, Any]) -> None:
        self.action = action
        self._arguments = arguments
        self._post_id = (arguments.get('post_id') or new_post_id()) if action in _POSTS else None
        self._sent_at: float | None = None
        self._known_seconds = 0.0

    @property
    def is_post(self) -> bool:
        """Whether `arguments` depends on what the server can do."""
        return self._post_id is not None

    def arguments(self, capabilities: Capabilities | None) -> dict[str, Any]:
        """The arguments for a server with these capabilities, which only a post needs.

        Raises OutcomeUnknown for a post that may have been stored if the server does not recognize
        repeated posts, and Unsupported for what a server of upstream's would ignore.
        """
        if self._post_id is None or capabilities is None:
            return self._arguments
        if not capabilities.server:
            self._check_for_upstream()
        known_seconds = capabilities.idempotency_seconds
        if known_seconds > 0:
            self._known_seconds = known_seconds
            return {**self._arguments, 'post_id': self._post_id}
        if self._sent_at is not None:
            raise OutcomeUnknown('A post may have been stored, and the server cannot tell.')
        return self._arguments

    def _check_for_upstream(self) -> None:
        if self._arguments.get('post_id'):
            raise Unsupported('This server does not recognize repeated posts by a post_id.')
        for message in self._arguments.get('messages') or ():
            for name in _EXTENSIONS:
                if isinstance(message, Mapping) and message.get(name):
                    raise Unsupported(f'This server ignores {name} of messages.')

    def broke(self, error: Broken, began_at: float) -> None:
        """The connection died over an attempt that began at that time."""
        if error.was_sent and self._sent_at is None:
            self._sent_at = began_at

    def may_repeat(self) -> bool:
        """Whether asking again is as good as having asked once, after a connection died."""
        if self._post_id is None:
            return may_repeat(self.action, self._arguments)
        if self._sent_at is None:
            return True
        return time.monotonic() - self._sent_at < self._known_seconds


def may_repeat(action: str, arguments: Mapping[str, Any]) -> bool:
    """Whether a request may be sent again when it is not known whether it was performed.

    An operation that this client does not know may not.
    """
    operation = OPERATIONS.get(action)
    return operation is not None and operation.may_repeat(arguments)


def new_post_id() -> str:
    """An id of a post that no other has and that sorts by time (RFC 9562, version 7)."""
    milliseconds = time.time_ns() // 1_000_000
    number = milliseconds << 80 | int.from_bytes(_random_parts.take(), 'big')
    number = number & ~(0xF << 76) | 0x7 << 76
    number = number & ~(0x3 << 62) | 0x2 << 62
    digits = f'{number:032x}'
    return f'{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}'
