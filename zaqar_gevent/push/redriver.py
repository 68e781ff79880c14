"""Takes the steps of redrives, in the background.

Each process that serves does so. A store lets one of them take the next step of a redrive at a
time, and the others go on where one has been killed.
"""

from __future__ import annotations

import time
from logging import WARNING

import gevent
from gevent.event import Event
from oslo_log import log
from zaqar.storage import errors as storage_errors

from zaqar_gevent.api import errors
from zaqar_gevent.api.broker import Broker
from zaqar_gevent.api.redrives import prepare_target
from zaqar_gevent.greenlets import MOMENT
from zaqar_gevent.logs import level_of
from zaqar_gevent.push.delays import Delays
from zaqar_gevent.redrives import RunningRedrive, State
from zaqar_gevent.storage.interface import RedriveController

LOG = log.getLogger(__name__)

LOOK_SECONDS = 2.0
"""Seconds between looks for what other processes have begun, or left when they were killed."""

FORGET_SECONDS = 300.0
"""Seconds between removals of redrives that are to be forgotten."""

_AT_ONCE = 10
"""Redrives of a store that have a turn each before it is looked again."""

_MOST_TARGETS = 100
"""Queues that one turn moves messages to."""

_POSTPONED_LOOK_SECONDS = 0.1
"""Seconds until the next look where a store only names redrives whose last step has failed: it does
not say then when the step of another one is due."""


class Redriver:
    """Takes the steps of all redrives of the stores.

    delays: tells those who wait, and subscribers, of messages that have become visible.
    kept_seconds: how long a redrive that is over is remembered.
    """

    def __init__(self, broker: Broker, delays: Delays, kept_seconds: float) -> None:
        self._broker = broker
        self._delays = delays
        self._kept_seconds = kept_seconds
        self._began = Event()
        self._forget_at = 0.0
        # Redrives whose last step has failed, and until when they wait.
        self._postponed: dict[RunningRedrive, float] = {}
        broker.redrives.began = self._began.set

    def run(self) -> None:
        """Take steps for ever."""
        while True:
            self._began.clear()
            wait = LOOK_SECONDS
            try:
                wait = self._look()
            except Exception as error:
                LOG.log(level_of(error, WARNING), 'Redrives have to wait: %s', error)
            if wait > 0:
                self._began.wait(wait)
            else:
                gevent.sleep(MOMENT)

    def _look(self) -> float:
        """Take the steps that are due; seconds until the next look."""
        wait = LOOK_SECONDS
        now = time.monotonic()
        self._postponed = {one: until for one, until in self._postponed.items() if until > now}
        must_forget = now >= self._forget_at
        for controller in self._broker.all_redrives():
            try:
                if must_forget:
                    controller.forget(self._kept_seconds)
                wait = min(wait, self._look_at(controller))
            except Exception as error:
                LOG.log(level_of(error, WARNING), 'Redrives have to wait: %s', error)
        if must_forget:
            self._forget_at = time.monotonic() + FORGET_SECONDS
        return wait

    def _look_at(self, controller: RedriveController) -> float:
        """Take the steps that are due in one store; seconds until it is to be looked at again.

        A redrive whose step fails waits for a while, and the others go on.
        """
        due, first = controller.find_due(_AT_ONCE + len(self._postponed))
        ready = [redrive for redrive in due if redrive not in self._postponed][:_AT_ONCE]
        for redrive in ready:
            try:
                self._take_turn(controller, redrive)
            except Exception as error:
                if level_of(error, WARNING) != WARNING:
                    # The store is out, also for the others.
                    raise
                LOG.warning(
                    'The redrive %s of the queue %s has to wait: %s',
                    *(redrive.id, redrive.queue, error),
                )
                self._postponed[redrive] = time.monotonic() + LOOK_SECONDS
        if due and not ready:
            return _POSTPONED_LOOK_SECONDS
        return LOOK_SECONDS if first is None else first

    def _take_turn(self, controller: RedriveController, redrive: RunningRedrive) -> None:
        """Take a step of one redrive; one that cannot go on is stopped."""
        broker = self._broker
        project, queue = redrive.project, redrive.queue
        targets: list[str] = []
        while True:
            step = controller.step(redrive, targets)
            for name, messages in step.messages.items():
                told = [{**one, 'delay': 0, 'passed': None} for one in messages]
                self._delays.became_due(project, name, told)
            target = step.target
            if step.moved or target is None or target in targets or len(targets) >= _MOST_TARGETS:
                return
            try:
                prepare_target(broker, controller, queue, target, project)
            except (errors.APIError, storage_errors.ExceptionBase) as error:
                if level_of(error, WARNING) != WARNING:
                    raise
                reason = str(error).removesuffix(' - at `$.target`') + '.'
                controller.end(queue, redrive.id, project, State.STOPPED, reason)
                return
            targets.append(target)
