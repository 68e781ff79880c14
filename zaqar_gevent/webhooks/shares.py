"""How many deliveries run at a time: projects take turns, and so do the subscriptions of each."""

from __future__ import annotations

import collections

from zaqar_gevent.webhooks.backlog import Backlog


class _ProjectBacklogs:
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
        self._by_project: dict[str | None, _ProjectBacklogs] = {}
        self._queue: collections.deque[_ProjectBacklogs] = collections.deque()
        self.running = 0

    def add(self, backlog: Backlog) -> None:
        """A backlog is ready; one that was never tried need not wait for those that failed."""
        backlogs = self._of(backlog.project)
        (backlogs.new if backlog.is_new else backlogs.ready).append(backlog)
        self._enqueue(backlogs)

    def next(self) -> Backlog | None:
        """The backlog whose turn it is, if there is room."""
        while self._queue and self.running < self._capacity:
            backlogs = self._queue.popleft()
            backlogs.is_queued = False
            backlog = (backlogs.new or backlogs.ready).popleft()
            backlog.is_ready = False
            if backlog.waiting:
                self.running += 1
                backlogs.running += 1
            self._enqueue(backlogs)
            if backlog.waiting:
                backlog.share = self
                return backlog
        return None

    def has_room(self, project: str | None) -> bool:
        """Whether one more of this project may run."""
        backlogs = self._by_project.get(project)
        return self.running < self._capacity and (
            backlogs is None or backlogs.running < self._of_project
        )

    def take_over(self, backlog: Backlog) -> None:
        """A backlog that is at work counts here from now on."""
        self._of(backlog.project).running += 1
        self.running += 1
        backlog.share = self

    def release(self, project: str | None) -> None:
        """A backlog of this project has done its work."""
        backlogs = self._by_project[project]
        backlogs.running -= 1
        self.running -= 1
        self._enqueue(backlogs)

    def _of(self, project: str | None) -> _ProjectBacklogs:
        backlogs = self._by_project.get(project)
        if backlogs is None:
            backlogs = self._by_project[project] = _ProjectBacklogs(project)
        return backlogs

    def _enqueue(self, backlogs: _ProjectBacklogs) -> None:
        if not backlogs.ready and not backlogs.new:
            if not backlogs.running:
                del self._by_project[backlogs.project]
        elif not backlogs.is_queued and backlogs.running < self._of_project:
            backlogs.is_queued = True
            self._queue.append(backlogs)
