"""An operation that may take several attempts, because connections die."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Mapping
from typing import Any

from zaqar_gevent.client.errors import OutcomeUnknown
from zaqar_gevent.client.links import Answer, Broken, Capabilities, Link
from zaqar_gevent.client.operations import OPERATIONS

_POSTS = ('message_post', 'topic_message_post')


class Attempt:
    """One operation and whether it may be asked again.

    A post is given an id where the server knows posts by it, so that it may be repeated for as long
    as it does.
    """

    def __init__(self, action: str, arguments: dict[str, Any]) -> None:
        self._action = action
        self._arguments = arguments
        self._post_id = (arguments.get('post_id') or new_post_id()) if action in _POSTS else None
        self._sent_at: float | None = None
        self._known_seconds = 0.0

    def make(self, link: Link, seconds: float) -> Answer:
        """Ask for it over a link; see `Link.perform`."""
        arguments = self._arguments
        if self._post_id is not None:
            known_seconds = _capabilities(link).idempotency_seconds
            if known_seconds > 0:
                self._known_seconds = known_seconds
                arguments = {**arguments, 'post_id': self._post_id}
            elif self._sent_at is not None:
                raise OutcomeUnknown('A post may have been stored, and the server cannot tell.')
        began_at = time.monotonic()
        try:
            return link.perform(self._action, arguments, seconds)
        except Broken as error:
            if error.was_sent and self._sent_at is None:
                self._sent_at = began_at
            raise

    def may_repeat(self) -> bool:
        """Whether to ask again is as good as to have asked once, after a link died over it."""
        if self._post_id is None:
            return may_repeat(self._action, self._arguments)
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
    number = milliseconds << 80 | int.from_bytes(os.urandom(10), 'big')
    number = number & ~(0xF << 76) | 0x7 << 76
    number = number & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=number & (1 << 128) - 1))


def _capabilities(link: Link) -> Capabilities:
    """What the server can do; asking that is no part of what is attempted."""
    try:
        return link.capabilities
    except Broken as error:
        raise Broken(str(error), was_sent=False) from error
