"""The common part of WebSocket connections and REST: answers, errors, capabilities."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from zaqar_gevent.client.errors import ConnectionLost, Timeout, from_answer


class Answer(NamedTuple):
    """The result of an operation, in the form of the WebSocket."""

    status: int
    body: Any


def check(answer: Answer) -> Answer:
    """The answer, unless it reports an error: then that is raised, an APIError."""
    if answer.status >= 400:
        raise from_answer(answer.status, answer.body)
    return answer


class Broken(ConnectionLost):
    """A connection died over a request; whether the whole request had been sent before.

    It stays inside of the client.
    """

    def __init__(self, reason: str, *, was_sent: bool) -> None:
        super().__init__(reason)
        self.was_sent = was_sent

    def public(self) -> ConnectionLost:
        """The error that users get."""
        return ConnectionLost(str(self))


def no_answer(seconds: float) -> Timeout:
    """The error of a request that had so many seconds, if any were left, to be answered."""
    limit = f'within {seconds:.1f} s' if round(seconds, 1) > 0 else 'in time'
    return Timeout(f'No answer {limit}.')


@dataclasses.dataclass(frozen=True)
class Capabilities:
    """The capabilities of a server; upstream's where the server does not say.

    max_wait: how long it lets a request wait for messages, in seconds; 0 for not at all.
    idempotency_seconds: for how long it knows a post again by its `post_id`; 0 for not at all.
    max_message_size: in bytes, of what it takes.
    """

    server: str = ''
    protocols: tuple[str, ...] = ()
    max_in_flight: int = 64
    max_message_size: int = 262144
    ping_interval: float = 0.0
    idle_timeout: float = 0.0
    max_wait: float = 0.0
    idempotency_seconds: float = 0.0

    @classmethod
    def of(cls, body: Any) -> Capabilities:
        """Read a server's capabilities; missing and invalid ones keep their defaults."""
        if not isinstance(body, Mapping):
            return cls()
        given: dict[str, Any] = {}
        for field in dataclasses.fields(cls):
            value = body.get(field.name)
            if field.name == 'protocols' and isinstance(value, list):
                given[field.name] = tuple(value)
            elif (field.name == 'server' and isinstance(value, str)) or (
                field.name not in ('protocols', 'server')
                and isinstance(value, int | float)
                and value >= 0
            ):
                given[field.name] = value
        return cls(**given)


class Unreachable(OSError):
    """There is no connection to be had: no server there, no such name, no valid certificate."""
