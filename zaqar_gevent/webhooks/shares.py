"""How many deliveries run at a time: projects take turns, and so do the subscriptions of each."""

from __future__ import annotations

import collections

from zaqar_gevent.webhooks.backlog import Backlog


class _Turns:
    """The backlogs of one project that are ready, and how many of them are at work."""

    __slots__ = ('is_queued', 'new', 'project', 'ready', 'running')

    def __init__(self, project: str | None) -> None:
        self.project = project
        self.new: collections.deque[Backlog] = collections.deque()
        self.ready: collections.deque[Backlog] = collections.deque()
        self.running = 0
        self.is_queued = False


class Share:
    """A part of all deliveries: projects take turns, and so do the backlogs of each."""

    def __init__(self, capacity: int, of_project: int) -> None:
        self._capacity = capacity
        self._of_project = of_project
        self._turns: dict[str | None, _Turns] = {}
        self._queue: collections.deque[_Turns] = collections.deque()
        self.running = 0

    def add(self, backlog: Backlog) -> None:
        """A backlog is ready; one that was never tried need not wait for those that failed."""
        turns = self._of(backlog.project)
        (turns.new if backlog.is_new else turns.ready).append(backlog)
        self._enqueue(turns)

    def next(self) -> Backlog | None:
        """The backlog whose turn it is, if there is room."""
        while self._queue and self.running < self._capacity:
            turns = self._queue.popleft()
            turns.is_queued = False
            backlog = (turns.new or turns.ready).popleft()
            backlog.is_ready = False
            if backlog.waiting:
                self.running += 1
                turns.running += 1
            self._enqueue(turns)
            if backlog.waiting:
                backlog.share = self
                return backlog
        return None

    def has_room(self, project: str | None) -> bool:
        """Whether one more of this project may run."""
        turns = self._turns.get(project)
        return self.running < self._capacity and (turns is None or turns.running < self._of_project)

    def take_over(self, backlog: Backlog) -> None:
        """A backlog that is at work counts here from now on."""
        self._of(backlog.project).running += 1
        self.running += 1
        backlog.share = self

    def release(self, project: str | None) -> None:
        """A backlog of this project has done its work."""
        turns = self._turns[project]
        turns.running -= 1
        self.running -= 1
        self._enqueue(turns)

    def _of(self, project: str | None) -> _Turns:
        turns = self._turns.get(project)
        if turns is None:
            turns = self._turns[project] = _Turns(project)
        return turns

    def _enqueue(self, turns: _Turns) -> None:
        if not turns.ready and not turns.new:
            if not turns.running:
                del self._turns[turns.project]
        elif not turns.is_queued and turns.running < self._of_project:
            turns.is_queued = True
            self._queue.append(turns)
