"""Upstream's notification tasks, for mail and whatever else is installed, with a time limit."""

from __future__ import annotations

import shutil
from typing import Any

import gevent
from gevent import monkey
from oslo_config import cfg

from zaqar_gevent.api.delivery import Notification, Subscription
from zaqar_gevent.api.notifier import task
from zaqar_gevent.webhooks.backlog import DELIVERED, Outcome


class Tasks:
    """Runs the task of a subscriber's scheme, which logs its own failures.

    seconds: how long one may take.
    """

    def __init__(self, conf: cfg.ConfigOpts, seconds: float) -> None:
        self._conf = _Bounded(conf, seconds)
        self._seconds = seconds

    def send(self, row: Subscription, notification: Notification, project: str | None) -> Outcome:
        """Run the task once; whatever happens is an outcome."""
        scheme = row['subscriber'].partition(':')[0].lower()
        outcome = Outcome('refused', f'not done within {self._seconds:g} s')
        try:
            with gevent.Timeout(self._seconds, False):
                run(self._execute, scheme, row, notification)
                outcome = DELIVERED
        except Exception as error:
            # A task may raise what it likes.
            return Outcome('refused', f'{type(error).__name__} in the task for {scheme}')
        return outcome

    def _execute(self, scheme: str, row: Subscription, notification: Notification) -> None:
        # Tasks change their arguments.
        given = dict(row), [notification.values()]
        task(scheme).execute(*given, conf=self._conf, queue_retry_policy={})


def run(job: Any, *arguments: Any) -> Any:
    """Call what may block: in a thread, unless blocking lets other greenlets run."""
    if monkey.is_module_patched('socket'):
        return job(*arguments)
    return gevent.get_hub().threadpool.apply(job, arguments)


class _Bounded:
    """The configuration, with a time limit for the command that sends mail."""

    def __init__(self, conf: cfg.ConfigOpts, seconds: float) -> None:
        self._conf = conf
        self.notification = _Mail(conf.notification, seconds)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._conf, name)


class _Mail:
    def __init__(self, group: Any, seconds: float) -> None:
        self._group = group
        limit = shutil.which('timeout')
        prefix = f'{limit} --kill-after=1 {seconds:g} ' if limit else ''
        self.smtp_command = f'{prefix}{group.smtp_command}'

    def __getattr__(self, name: str) -> Any:
        return getattr(self._group, name)
