"""Drivers that keep values, as upstream's, behind the interface of those that carry bodies.

A store says by its attribute `carries_bodies` that it takes and gives a `Body` with each message.
Every other store takes and gives the value of each body, and `bytes` for an encrypted one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from zaqar.storage import base

from zaqar_gevent.bodies import Body, body_of
from zaqar_gevent.storage.wrapped import Wrapped

Message = dict[str, Any]


def carry_bodies(driver: base.DataDriverBase) -> None:
    """Have the driver's controllers take and give a `Body` with each message."""
    if hasattr(driver, 'carries_bodies'):
        driver.carries_bodies = True
        return
    if isinstance(driver.message_controller, _Messages):
        return
    # Where upstream's lazy properties keep what they give.
    vars(driver).update(
        _lazy_message_controller=_Messages(driver.message_controller),
        _lazy_claim_controller=_Claims(driver.claim_controller),
    )


def _read(messages: Iterable[Message]) -> Iterator[Message]:
    for message in messages:
        value = message['body']
        # Upstream's `pop` gives what a claim has given.
        yield message if isinstance(value, Body) else {**message, 'body': body_of(value)}


class _Messages(Wrapped):
    """Upstream's message controller."""

    def post(
        self,
        queue: str,
        messages: Iterable[Message],
        client_uuid: Any,
        project: str | None = None,
    ) -> Any:
        values = [{**one, 'body': one['body'].value} for one in messages]
        return self._controller.post(queue, values, client_uuid, project=project)

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

    def pop(self, *args: Any, **kwargs: Any) -> Sequence[Message]:
        return [*_read(self._controller.pop(*args, **kwargs) or ())]


class _Claims(Wrapped):
    """Upstream's claim controller."""

    def create(self, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        claim_id, messages = self._controller.create(*args, **kwargs)
        return claim_id, list(_read(messages))

    def get(self, *args: Any, **kwargs: Any) -> tuple[Any, Iterator[Message]]:
        claim, messages = self._controller.get(*args, **kwargs)
        return claim, _read(messages)
