"""Upstream's controllers with some methods of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from zaqar.storage import base

from zaqar_gevent.storage.interface import StoredMessage

Convert = Callable[[Any], Any]


class Wrapped:
    """A controller, some of whose methods are others."""

    def __init__(self, controller: Any) -> None:
        self._controller = controller

    def __getattr__(self, name: str) -> Any:
        return getattr(self._controller, name)


class Messages(Wrapped):
    """A message controller whose bodies are converted on their way.

    write: gives the body that the controller stores. read: gives the body of what it has stored.
    """

    def __init__(self, controller: Any, write: Convert, read: Convert) -> None:
        super().__init__(controller)
        self._write = write
        self._read = read

    def post(
        self,
        queue: str,
        messages: Iterable[StoredMessage],
        client_uuid: Any,
        project: str | None = None,
    ) -> Any:
        stored = [{**one, 'body': self._write(one.get('body', {}))} for one in messages]
        return self._controller.post(queue, stored, client_uuid, project=project)

    def list(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        results = self._controller.list(*args, **kwargs)
        yield self._converted(next(results))
        yield from results

    def first(self, *args: Any, **kwargs: Any) -> StoredMessage:
        return next(self._converted([self._controller.first(*args, **kwargs)]))

    def get(self, *args: Any, **kwargs: Any) -> StoredMessage:
        return next(self._converted([self._controller.get(*args, **kwargs)]))

    def bulk_get(self, *args: Any, **kwargs: Any) -> Iterator[StoredMessage]:
        return self._converted(self._controller.bulk_get(*args, **kwargs))

    def _converted(self, messages: Iterable[StoredMessage]) -> Iterator[StoredMessage]:
        return _converted(messages, self._read)


class Claims(Wrapped):
    """A claim controller whose bodies are converted when they are read; see `Messages`."""

    def __init__(self, controller: Any, read: Convert) -> None:
        super().__init__(controller)
        self._read = read

    def create(self, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        claim_id, messages = self._controller.create(*args, **kwargs)
        return claim_id, list(_converted(messages, self._read))

    def get(self, *args: Any, **kwargs: Any) -> tuple[Any, Iterator[StoredMessage]]:
        claim, messages = self._controller.get(*args, **kwargs)
        return claim, _converted(messages, self._read)


def replace_controllers(driver: base.DataDriverBase, messages: Any, claims: Any) -> None:
    """Give a driver of upstream's other controllers of messages and claims."""
    # Where upstream's lazy properties keep what they give.
    vars(driver).update(_lazy_message_controller=messages, _lazy_claim_controller=claims)


def _converted(messages: Iterable[StoredMessage], read: Convert) -> Iterator[StoredMessage]:
    for message in messages:
        yield {**message, 'body': read(message['body'])}
