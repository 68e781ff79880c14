"""`consume`: a command of the shell, run for each message."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from zaqar_gevent.client import (
    BadRequest,
    Client,
    Consumer,
    Message,
    Queue,
    Unsupported,
    ZaqarError,
)
from zaqar_gevent.terminal.display import Display, compact, complain
from zaqar_gevent.terminal.listing import record_of
from zaqar_gevent.terminal.queues import exists

# Between asking a command to end and ending it.
_PATIENCE_SECONDS = 5.0
_MAX_BACKOFF_SECONDS = 300.0
# Characters that names of attributes may have and names of variables may not.
_NO_VARIABLE = str.maketrans('.-', '__')
# Exit statuses of the shell: a command that it may not run, and one that does not exist.
_CANNOT_RUN = (126, 127)


def run(client: Client, arguments: argparse.Namespace, display: Display) -> int:
    """Work until interrupted or at the limit; returns the exit status, 1 if any command failed.

    When interrupted, commands that run are ended, and their messages given back.
    """
    options = {name: getattr(arguments, name) for name in ('ttl', 'grace')}
    given = {name: value for name, value in options.items() if value is not None}
    if arguments.dead_letter_queue == arguments.queue:
        complain('the dead-letter queue must be another queue')
        return 2
    queue = client.queue(arguments.queue)
    if not exists(queue):
        complain(f'there is no queue {queue.name} yet; waiting for its first message')
    with queue.consume(credit=arguments.jobs, **given) as consumer:
        worker = _Worker(client, arguments, display, consumer)
        with worker.working() as pool:
            display.say(f'Consuming {arguments.queue}; Ctrl-C ends it.')
            for message in itertools.islice(consumer, arguments.limit):
                pool.submit(worker.handle, message)
    return 1 if worker.failures else 0


class _Worker:
    """Runs the command in threads, and settles messages by how it ended.

    successes, failures: how many messages the command succeeded for, or did not. dead: how many of
    the latter went to the dead-letter queue. consumer: where the messages come from; it is closed
    if the command cannot be run.
    """

    def __init__(
        self, client: Client, arguments: argparse.Namespace, display: Display, consumer: Consumer
    ) -> None:
        name: str | None = arguments.dead_letter_queue
        self._client = client
        self._dead_letters = None if name is None else client.queue(name)
        self._arguments = arguments
        self._display = display
        self._consumer = consumer
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._is_broken = False
        self.successes = 0
        self.failures = 0
        self.dead = 0

    @contextlib.contextmanager
    def working(self) -> Iterator[ThreadPoolExecutor]:
        """A pool for `handle`, which is waited for at the end, unless that is an exception."""
        pool = ThreadPoolExecutor(self._arguments.jobs)
        try:
            yield pool
            if not self._is_broken:
                pool.shutdown()
        finally:
            self._over.set()
            self._end_commands()
            pool.shutdown()
            told = [f'{self.successes} done', f'{self.failures - self.dead} given back']
            if self._dead_letters is not None:
                told.append(f'{self.dead} moved to {self._dead_letters.name}')
            self._display.say(f'{", ".join(told)}.')

    def handle(self, message: Message) -> None:
        """Run the command for a message, if need be several times, and settle it."""
        began = time.monotonic()
        attempts = 0
        try:
            status, attempts = self._attempt(message)
            is_done = status == 0 and message.ack()
            if status in _CANNOT_RUN:
                self._stop(message, status)
            elif status != 0:
                self._give_up(message, status, attempts)
            elif not is_done:
                complain(f'{message.id}: the lease was lost meanwhile; it comes again')
        except (ZaqarError, OSError) as error:
            status, is_done = None, False
            complain(f'{message.id}: {error}')
            # If that fails as well, the lease ends by itself.
            with contextlib.suppress(ZaqarError):
                message.release()
        with self._lock:
            self.successes += is_done
            self.failures += not is_done
            if self._arguments.format == 'json':
                seconds = round(time.monotonic() - began, 3)
                record = {'id': message.id, 'status': status, 'seconds': seconds}
                self._display.show({**record, 'attempts': attempts}, '')

    def _attempt(self, message: Message) -> tuple[int, int]:
        """Run the command until it succeeds or the attempts are used up.

        The last exit status, and how many attempts there were.
        """
        most: int = self._arguments.attempts
        backoff: float = self._arguments.backoff
        attempt = 1
        while True:
            status = self._run(message, attempt)
            if status in (0, *_CANNOT_RUN) or attempt == most or self._over.is_set():
                return status, attempt
            complain(
                f'{message.id}: attempt {attempt} of {most} failed ({_told(status)}); '
                f'the next is in {backoff:g} s'
            )
            if self._over.wait(backoff):
                return status, attempt
            attempt += 1
            backoff = min(backoff * 2, _MAX_BACKOFF_SECONDS)

    def _stop(self, message: Message, status: int) -> None:
        """End the work, and give all messages back: no other one would fare better."""
        with self._lock:
            is_first, self._is_broken = not self._is_broken, True
        if is_first:
            complain(
                f'{message.id}: the command cannot be run (exit status {status}): '
                f'{self._arguments.exec}. The message is given back, and the worker stops'
            )
            self._over.set()
            self._consumer.close()

    def _give_up(self, message: Message, status: int, attempts: int) -> None:
        """Move a message to the dead-letter queue; without one, or if interrupted, give it back."""
        if not self._over.is_set():
            complain(f'{message.id}: the command failed ({_told(status)})')
            if self._dead_letters is not None:
                tried = f'{attempts} attempt{"" if attempts == 1 else "s"}'
                reason = f'The command failed ({_told(status)}) after {tried}.'
                if not self._bury(message, self._dead_letters, reason):
                    complain(f'{message.id}: the lease was lost meanwhile; it comes again')
                    return
                with self._lock:
                    self.dead += 1
                complain(f'{message.id}: moved to {self._dead_letters.name} after {tried}')
                return
            self._over.wait(self._arguments.pause)
        message.release()

    def _bury(self, message: Message, dead_letters: Queue, reason: str) -> bool:
        """Move a message to the dead-letter queue; False if its lease was lost before.

        If the settings of the queue name the same dead-letter queue, the server moves the message,
        and notes where it is from and why.
        """
        own = self._client.queue(self._arguments.queue).get_metadata().get('_dead_letter_queue')
        if own == dead_letters.name:
            # A server of upstream's cannot, nor can every store.
            with contextlib.suppress(Unsupported, BadRequest):
                return message.reject(reason)
        # It is deleted here after it has arrived there: it may come twice, but is not lost.
        dead_letters.post(
            [message.body], attributes=message.attributes or None, group=message.group
        )
        message.ack()
        return True

    def _run(self, message: Message, attempt: int) -> int:
        """The exit status of the command; negative if it was a signal."""
        environment = {
            **os.environ,
            'ZAQAR_QUEUE': self._arguments.queue,
            'ZAQAR_MESSAGE_ID': message.id,
            'ZAQAR_ATTEMPT': str(attempt),
            **_variables_of(message),
        }
        with self._lock:
            if self._over.is_set():
                return -signal.SIGTERM
            # NOTE: a group of its own, so that what the command has started ends with it.
            process = subprocess.Popen(  # noqa: S603 the user's own command
                ['/bin/sh', '-c', self._arguments.exec],
                stdin=subprocess.PIPE,
                stdout=sys.stderr if self._arguments.format == 'json' else None,
                env=environment,
                process_group=0,
            )
            self._running.add(process)
        try:
            process.communicate(self._input(message))
        finally:
            with self._lock:
                self._running.discard(process)
        return process.returncode

    def _input(self, message: Message) -> bytes:
        value: Any = message.body if self._arguments.body else record_of(message)
        text = value if isinstance(value, str) else compact(value) + '\n'
        return text.encode()

    def _end_commands(self) -> None:
        """Ask what runs to end, and make it."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        self._signal(signal.SIGTERM)
        while self._running and time.monotonic() < deadline:
            time.sleep(0.02)
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with self._lock:
            for process in self._running:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)


def _variables_of(message: Message) -> dict[str, str]:
    """The group and attributes of a message as variables, which cannot hold a NUL character."""
    group = {} if message.group is None else {'ZAQAR_GROUP': message.group}
    return group | {
        'ZAQAR_ATTRIBUTE_' + name.upper().translate(_NO_VARIABLE): value
        for name, value in message.attributes.items()
        if '\0' not in value
    }


def _told(status: int) -> str:
    if status < 0:
        return signal.Signals(-status).name
    return f'exit status {status}'
