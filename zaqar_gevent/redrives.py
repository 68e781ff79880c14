"""Redrives: moves of dead letters back to where they are from, or to another queue.

A store moves a few messages at a time, in one transaction that also counts them; so a redrive goes
on after a crash, and no message is lost or there twice.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypedDict

from zaqar.storage import errors

STEP = 100
"""Messages that one step moves at most."""

STEP_BYTES = 1024 * 1024
"""Bytes of bodies after which a step ends. It moves one message at least, however long."""

KEPT_SECONDS = 7 * 24 * 3600
"""How long a redrive that is over is remembered, where nothing else is configured."""

KEPT_OF_QUEUE = 100
"""Redrives of one queue that are remembered, running ones included; the oldest that are over are
forgotten first."""


class State(enum.StrEnum):
    """RUNNING: it goes on. FINISHED: every message has been looked at, or the limit is reached.
    CANCELLED: somebody has ended it. STOPPED: it cannot go on; the reason says why.
    """

    RUNNING = enum.auto()
    FINISHED = enum.auto()
    CANCELLED = enum.auto()
    STOPPED = enum.auto()


class RedriveDoesNotExist(errors.DoesNotExist):
    """There is no such redrive of this queue, or it was forgotten."""

    msg_format = 'Queue {queue} of project {project} has no redrive {redrive_id}'

    def __init__(self, redrive_id: str, queue: str, project: str | None) -> None:
        super().__init__(redrive_id=redrive_id, queue=queue, project=project)


class TooManyRedrives(errors.ExceptionBase):
    """As many redrives run as may at a time; `owner` is `queue` or `project`."""

    msg_format = 'A {owner} may have at most {most} redrives that run at a time'

    def __init__(self, owner: str, most: int) -> None:
        super().__init__(owner=owner, most=most)
        self.owner, self.most = owner, most


class NewRedrive(NamedTuple):
    """The request for a redrive.

    target: where the messages go; None for the queue that each is from. limit: messages to be moved
        at most; None for all. rate: messages a second at most; None for no limit. most_of_queue,
        most_of_project: redrives that may run at a time, this one included.
    """

    target: str | None
    limit: int | None
    rate: float | None
    most_of_queue: int
    most_of_project: int


class StoredRedrive(TypedDict):
    """A redrive. `left`: messages that say no queue that they are from, and stay. `created` and
    `ended` are in seconds since the epoch; `ended` is None while it runs.
    """

    id: str
    target: str | None
    limit: int | None
    rate: float | None
    state: str
    reason: str | None
    moved: int
    left: int
    created: float
    ended: float | None


class RunningRedrive(NamedTuple):
    """A redrive whose next step is due."""

    project: str | None
    queue: str
    id: str


class DueRedrives(NamedTuple):
    """Redrives whose next step is due, and in how many seconds the first step of all is due."""

    redrives: list[RunningRedrive]
    seconds: float | None


class Step(NamedTuple):
    """The result of a step.

    moved: how many messages. target: the queue that the next message is for and that is not among
        those that may be used; None if there is none. messages: those moved, by the name of their
        queue, as far as the store does not report them itself.
    """

    moved: int
    target: str | None = None
    messages: Mapping[str, list[dict[str, Any]]] = MappingProxyType({})


def step_size(rate: float | None, remaining: int | None) -> int:
    """How many messages one step may move: not more than in a second."""
    most = STEP if rate is None else min(STEP, max(1, int(rate)))
    return most if remaining is None else min(most, remaining)


def pause_after(moved: int, rate: float | None) -> float:
    """Seconds until the next step."""
    return 0.0 if rate is None else moved / rate


FORGOTTEN_QUEUE = 'The queue was deleted.'
"""Why a redrive has stopped whose messages are gone."""
