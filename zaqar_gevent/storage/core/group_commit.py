"""Group commit: the calls that gathered during one transaction are the next transaction.

A call that raises an error of `zaqar.storage.errors` has changed nothing and fails alone. One that
fails for any other reason of its own fails alone, too: the others are then committed one by one.
What fails the store fails all calls.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from zaqar.storage import errors

from zaqar_gevent.metrics import COMMIT_SIZES
from zaqar_gevent.storage.core.arguments import NO_PROJECT, find_project, find_queue
from zaqar_gevent.storage.core.completions import Call

Outcome = Any
"""A result, or the exception that the call is to raise."""


CoalescedWork = Callable[[Any, Sequence[tuple[Any, ...]]], list[Outcome]]


def coalesced(*, in_order: bool = False) -> Callable[[CoalescedWork], CoalescedWork]:
    """Make a work serve several calls of one transaction at once, given their arguments.

    in_order: serve calls that follow one another, rather than all of the transaction after the
        others: for work whose calls must not change places with the calls of other works.

    PERF: each statement gives the GIL away and takes it back, so a few large statements cost less
    than many small ones.
    """

    def mark(work: CoalescedWork) -> CoalescedWork:
        work.is_coalesced_in_order = in_order  # type: ignore[attr-defined]
        return work

    return mark


APART: set[Callable[..., Any]] = set()
"""Works whose calls are transactions by themselves; see `apart`."""

Work = TypeVar('Work', bound=Callable[..., Any])


def apart(work: Work) -> Work:
    """Have each call of a work be a transaction by itself, in turns with all other calls.

    For parts of long tasks: callers of other works wait for one of them at most. Nobody gathers
    calls with these, so each caller has one at a time. What they commit need not be durable before
    the next call of another work is answered.
    """
    APART.add(work)
    return work


class GroupCommit:
    """Commits batches of calls; a store says how.

    After a failure the calls of a damaged queue no longer share transactions with others.
    """

    def __init__(self) -> None:
        self._damaged: set[tuple[str, str]] = set()
        self._is_turn_of_apart = False
        self._latest_project = NO_PROJECT

    def execute(self, calls: list[Call]) -> list[Call]:
        """Give calls their `result` or `error`, except for those that are returned."""
        chosen, rest = self._choose(calls)
        for some in self._part(chosen):
            try:
                self._commit_together(some)
            except BaseException as error:
                self._recover(some, error)
        return rest

    def commit(self, calls: list[Call]) -> None:
        """Perform `calls` (see `perform`) in one transaction; raises what prevents that."""
        raise NotImplementedError

    def reset(self) -> None:
        """Begin with a new connection, after a failure."""
        raise NotImplementedError

    def concerns_all(self, error: BaseException) -> bool:
        """Whether `error` would fail any other call, too."""
        raise NotImplementedError

    def is_damage(self, error: BaseException) -> bool:
        """Whether `error` says that a part of the store is damaged."""
        raise NotImplementedError

    def explain(self, error: BaseException, queue: tuple[str, str] | None) -> BaseException:
        """The exception for the caller of the only call that failed with `error`.

        queue: the project and the name of its queue, if these are known and it is damaged.
        """
        raise NotImplementedError

    def explain_to_all(self, error: BaseException) -> BaseException:
        """The exception for each caller where `error` fails them all."""
        raise NotImplementedError

    def _choose(self, calls: list[Call]) -> tuple[list[Call], list[Call]]:
        """The calls whose turn it is, and those that have theirs later; see `apart`."""
        if APART.isdisjoint(map(_get_work, calls)):
            return calls, []
        waiting = [call for call in calls if call.work in APART]
        others = [call for call in calls if call.work not in APART]
        if others and not self._is_turn_of_apart:
            self._is_turn_of_apart = True
            return others, waiting
        self._is_turn_of_apart = False
        projects = [find_project(call.work, call.arguments) for call in waiting]
        # So that one project does not have all the turns.
        place = next((n for n, one in enumerate(projects) if one != self._latest_project), 0)
        self._latest_project = projects[place]
        return [waiting.pop(place)], others + waiting

    def _part(self, calls: list[Call]) -> list[list[Call]]:
        """The calls by transaction: those of a damaged queue by themselves."""
        if not self._damaged:
            return [calls]
        parts: dict[tuple[str, str] | None, list[Call]] = {}
        for call in calls:
            queue = find_queue(call.work, call.arguments)
            parts.setdefault(queue if queue in self._damaged else None, []).append(call)
        return list(parts.values())

    def _commit_together(self, calls: list[Call]) -> None:
        self.commit(calls)
        COMMIT_SIZES.append(len(calls))

    def _recover(self, calls: list[Call], error: BaseException) -> None:
        """Serve `calls`, whose transaction failed with `error`, as far as that is possible."""
        self.reset()
        if self.concerns_all(error):
            self._fail(calls, error)
        else:
            self._commit_one_by_one(calls)

    def _commit_one_by_one(self, calls: list[Call]) -> None:
        for position, call in enumerate(calls):
            call.result = call.error = None
            try:
                self._commit_together([call])
            except BaseException as error:
                self.reset()
                if self.concerns_all(error):
                    self._fail(calls[position:], error)
                    return
                queue = None
                if self.is_damage(error):
                    queue = find_queue(call.work, call.arguments)
                    if queue is not None:
                        self._damaged.add(queue)
                call.error = self.explain(error, queue)

    def _fail(self, calls: list[Call], error: BaseException) -> None:
        for call in calls:
            call.result = None
            call.error = self.explain_to_all(error)


def perform(cursor: Any, calls: list[Call]) -> None:
    """Do the work of each call with `cursor`; see `coalesced` for those done together."""
    last: dict[Callable[..., Any], list[Call]] = {}
    runs: list[tuple[Callable[..., Any], list[Call]]] = []
    for work, group in itertools.groupby(calls, key=_get_work):
        if getattr(work, 'is_coalesced_in_order', None) is False:
            last.setdefault(work, []).extend(group)
        elif runs and runs[-1][0] is work:
            runs[-1][1].extend(group)
        else:
            runs.append((work, [*group]))
    for work, alike in runs:
        if hasattr(work, 'is_coalesced_in_order'):
            _perform_together(cursor, work, alike)
        else:
            for call in alike:
                _perform_alone(cursor, call)
    for work, alike in last.items():
        _perform_together(cursor, work, alike)


_get_work = operator.attrgetter('work')


def _perform_alone(cursor: Any, call: Call) -> None:
    try:
        call.result = call.work(cursor, *call.arguments)
    except errors.ExceptionBase as error:
        call.error = error


def _perform_together(cursor: Any, work: Callable[..., Any], calls: list[Call]) -> None:
    outcomes = work(cursor, [call.arguments for call in calls])
    for call, outcome in zip(calls, outcomes, strict=True):
        if isinstance(outcome, BaseException):
            call.error = outcome
        else:
            call.result = outcome
