"""How much of what stays in memory, or is waited for, each project may have at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from zaqar_gevent.api import errors


class Quota:
    """How many of something each project may have in this process.

    what: the plural, for errors. option: the name of the option that says how many.
    """

    def __init__(self, what: str, most: int, option: str) -> None:
        self._what = what
        self._most = most
        self._option = option
        self._taken: dict[str | None, int] = {}

    def check(self, project: str | None) -> None:
        """Raise `errors.TooMany` where a project has as many as it may have."""
        if self._taken.get(project, 0) >= self._most:
            raise too_many(self._what, 'project', self._most, self._option)

    def take(self, project: str | None) -> None:
        """Count one more; raises `errors.TooMany` where a project has as many as it may have."""
        self.check(project)
        self._taken[project] = self._taken.get(project, 0) + 1

    def give_back(self, project: str | None) -> None:
        """Count one less."""
        left = self._taken[project] - 1
        if left:
            self._taken[project] = left
        else:
            del self._taken[project]

    @contextmanager
    def held(self, project: str | None) -> Iterator[None]:
        """Count one more meanwhile; raises like `take`."""
        self.take(project)
        try:
            yield
        finally:
            self.give_back(project)


class Quotas(NamedTuple):
    """The quotas of projects, and the most that one connection, queue or subscription may have.

    subscriptions: of connections. subscription_options_bytes: as JSON.
    """

    consumers: Quota
    subscriptions: Quota
    waits: Quota
    consumers_per_connection: int
    subscriptions_per_connection: int
    subscriptions_per_queue: int
    subscription_options_bytes: int


def too_many(what: str, owner: str, most: int, option: str) -> errors.TooMany:
    """The error for one more than `most`: of a `project`, a `connection` or a `queue`."""
    return errors.TooMany(
        f'A {owner} may have at most {most} {what} at a time ([drivers:transport:gevent] {option}).'
    )


def quotas(
    *,
    consumers_per_connection: int = 256,
    consumers_per_project: int = 2000,
    subscriptions_per_connection: int = 1000,
    subscriptions_per_project: int = 20_000,
    subscriptions_per_queue: int = 10_000,
    subscription_options_bytes: int = 16 * 1024,
    waits_per_project: int = 1000,
) -> Quotas:
    """Quotas of so many each."""
    return Quotas(
        Quota('consumers', consumers_per_project, 'max_consumers_per_project'),
        Quota(
            'subscriptions of connections',
            subscriptions_per_project,
            'max_subscriptions_per_project',
        ),
        Quota('requests that wait for messages', waits_per_project, 'max_waits_per_project'),
        consumers_per_connection,
        subscriptions_per_connection,
        subscriptions_per_queue,
        subscription_options_bytes,
    )
