"""Keeps encrypted bodies apart in a store that gives bytes back as text: Swift, whose driver writes
JSON.

A text is an encrypted body if it looks like one. So a plain text that looks like one is stored with
a prefix, and reads as it was posted. An upstream server does not add the prefix: what its clients
post in plain, and looks like an encrypted body, is taken for one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from zaqar.storage import base

from zaqar_gevent.encryption import authenticated, upstream
from zaqar_gevent.storage.wrapped import Wrapped

PREFIX = 'zgev0.'
"""What a plain text begins with that would be taken for an encrypted body."""

_AUTHENTICATED = authenticated.PREFIX.decode()

Message = dict[str, Any]


def keep_apart(driver: base.DataDriverBase) -> None:
    """Have the driver's controllers take and give encrypted bodies as bytes."""
    # Where upstream's lazy properties keep what they give.
    vars(driver).update(
        _lazy_message_controller=_Messages(driver.message_controller),
        _lazy_claim_controller=_Claims(driver.claim_controller),
    )


def to_text(body: Any) -> Any:
    """What is stored of a body."""
    if type(body) is bytes:
        return body.decode()
    if type(body) is str and (body.startswith(PREFIX) or _looks_encrypted(body)):
        return PREFIX + body
    return body


def from_text(body: Any) -> Any:
    """The body of which this is stored."""
    if type(body) is not str:
        return body
    if body.startswith(PREFIX):
        return body.removeprefix(PREFIX)
    return body.encode() if _looks_encrypted(body) else body


def _looks_encrypted(text: str) -> bool:
    return text.startswith(_AUTHENTICATED) or upstream.looks_encrypted(text)


def _read(messages: Iterable[Message]) -> Iterator[Message]:
    for message in messages:
        yield {**message, 'body': from_text(message['body'])}


class _Messages(Wrapped):
    """Upstream's message controller. Its `pop` makes a claim, which is wrapped, too."""

    def post(
        self,
        queue: str,
        messages: Iterable[Message],
        client_uuid: Any,
        project: str | None = None,
    ) -> Any:
        stored = [{**one, 'body': to_text(one.get('body', {}))} for one in messages]
        return self._controller.post(queue, stored, client_uuid, project=project)

    def list(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        results = self._controller.list(*args, **kwargs)
        yield _read(next(results))
        yield from results

    def first(self, *args: Any, **kwargs: Any) -> Message:
        return next(_read([self._controller.first(*args, **kwargs)]))

    def get(self, *args: Any, **kwargs: Any) -> Message:
        return next(_read([self._controller.get(*args, **kwargs)]))

    def bulk_get(self, *args: Any, **kwargs: Any) -> Iterator[Message]:
        return _read(self._controller.bulk_get(*args, **kwargs))


class _Claims(Wrapped):
    """Upstream's claim controller."""

    def create(self, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        claim_id, messages = self._controller.create(*args, **kwargs)
        return claim_id, list(_read(messages))

    def get(self, *args: Any, **kwargs: Any) -> tuple[Any, Iterator[Message]]:
        claim, messages = self._controller.get(*args, **kwargs)
        return claim, _read(messages)
