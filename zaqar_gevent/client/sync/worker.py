# Written by `tox -e genblocking` from client/aio/worker.py: change that one.
# fmt: off
"""A pool of workers over a queue."""

from __future__ import annotations

import logging
import signal
import time
import types
from collections.abc import Callable, Iterable
from typing import Any

from zaqar_gevent.client.sync import io
from zaqar_gevent.client.sync.consumer import Consumer
from zaqar_gevent.client.sync.message import Message
from zaqar_gevent.client.sync.queue import Queue
from zaqar_gevent.client.errors import LeaseLost, Reject, Retry, ZaqarError

LOG = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_RECEIVE_SECONDS = 5.0
_JOIN_SECONDS = 1.0
# How often a worker that pauses looks whether it is to stop.
_LOOK_SECONDS = 0.1
# For how long the settings of the queue are taken to be what they were.
_SETTINGS_SECONDS = 10.0


class Worker:
    """Calls a function for each message of a queue, for several messages at a time.

    The message is acknowledged when the function returns. When it raises, the error is logged and
    the message is given back, so that it is delivered again: the settings of the queue say how
    often (`_max_claim_count`) and where it goes then (`_dead_letter_queue`).

    It may raise `Retry(delay=)` to say when, or `Reject(reason)` for a message that no retry helps.

    queue: where the messages come from.
    handler: called with each message.
    concurrency: how many messages are worked on at a time, each by a background task.
    ttl, grace: of the leases, in seconds, 60 or more; they are renewed while the handler runs.
    stop_timeout: how many seconds running handlers have to end when the worker is stopped. Messages
        of those that do not are given back.
    pause: after how many seconds a message is given back whose handler failed, if the queue has no
        `_retry_delay`; the worker takes no other message in its place meanwhile. Not for `Retry`.
    on_done: called with a message that was dealt with, and the seconds that it took.
    on_error: called with a message that was not, the seconds, and the error.

    succeeded, failed: how many messages were dealt with, and how often handlers failed.
    """

    def __init__(
        self,
        queue: Queue,
        handler: Callable[[Message], Any],
        *,
        concurrency: int = 4,
        ttl: int | None = None,
        grace: int | None = None,
        stop_timeout: float = 30.0,
        pause: float = 1.0,
        on_done: Callable[[Message, float], Any] | None = None,
        on_error: Callable[[Message, float, Exception], Any] | None = None,
    ) -> None:
        if not isinstance(queue, Queue):
            raise TypeError(
                "The queue must be one of this client's, such as client.queue('orders') "
                f'of {Queue.__module__.rpartition(".")[0]}.Client, not {queue!r}.'
            )
        if not callable(handler):
            raise TypeError(
                f'The handler must be a function that takes a message, not {handler!r}.'
            )
        for role, function in (('handler', handler), ('on_done', on_done), ('on_error', on_error)):
            io.check_handler(role, function)
        if not pause >= 0:
            raise ValueError('The pause must be 0 or more seconds.')
        if concurrency < 1:
            raise ValueError('The concurrency must be at least 1.')
        self._queue = queue
        self._handler = handler
        self._concurrency = concurrency
        self._terms = {'ttl': ttl, 'grace': grace}
        self._stop_timeout = stop_timeout
        self._pause_seconds = pause
        self._delays_retries = False
        self._settings_until = 0.0
        self._on_done = on_done
        self._on_error = on_error
        self._consumer: Consumer | None = None
        self._receiving = io.Mutex()
        self._counting = io.Condition()
        self._running: dict[str, Message] = {}
        self._failure: Exception | None = None
        self._is_stopping = False
        self.succeeded = 0
        self.failed = 0

    def __repr__(self) -> str:
        state = 'stopping' if self._is_stopping else f'{len(self._running)} running'
        return f'<Worker of {self._queue!r}, {state}>'

    def run(self, *, signals: Iterable[signal.Signals] = SIGNALS) -> None:
        """Work until stopped, by `stop` or a signal, then let running handlers end.

        signals: those that stop it; they are handled by the main thread only, and a second one has
        its usual effect. Raises what receiving raises, such as Forbidden.
        """
        tasks = [
            io.Task(self._work, f'zaqar-worker-{number}') for number in range(self._concurrency)
        ]
        with self._queue.consume(credit=self._concurrency, **self._terms) as consumer:
            self._consumer = consumer
            if self._is_stopping:
                return
            with io.on_signals(signals, self.stop):
                for task in tasks:
                    task.start()
                self._join(tasks)
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Begin to stop: no more messages are received, and `run` returns when handlers have ended.

        May be called by a handler, by any thread, or by a signal handler.
        """
        self._is_stopping = True
        if self._consumer is not None:
            self._consumer.stop()

    def _join(self, tasks: list[io.Task]) -> None:
        deadline: float | None = None
        while any(task.is_running for task in tasks):
            if self._is_stopping and deadline is None:
                deadline = time.monotonic() + self._stop_timeout
            if deadline is not None and time.monotonic() > deadline:
                break
            for task in tasks:
                task.join(_JOIN_SECONDS / len(tasks))
        unfinished = list(self._running.values())
        if unfinished:
            LOG.warning(
                '%d handlers have not ended within %.0f s; their messages are given back: %s',
                len(unfinished),
                self._stop_timeout,
                unfinished[:10],
            )
            for task in tasks:
                task.cancel()

    def _work(self) -> None:
        while not self._is_stopping:
            try:
                message = self._receive()
            except LeaseLost as error:
                LOG.warning('%s', error)
                continue
            except Exception as error:
                self._failure = self._failure or error
                self.stop()
                return
            if message is not None:
                self._handle(message)

    def _receive(self) -> Message | None:
        consumer = self._consumer
        with self._receiving:
            if consumer is None or self._is_stopping:
                return None
            message = consumer.receive(_RECEIVE_SECONDS)
            if message is not None:
                self._running[message.id] = message
            return message

    def _handle(self, message: Message) -> None:
        began = time.monotonic()
        error: Exception | None = None
        try:
            io.ask(lambda: self._handler(message))
        except (Reject, Retry) as raised:
            error = raised
        except Exception as raised:
            error = raised
            LOG.error(
                'The handler failed for %r, which is given back',
                message,
                exc_info=(type(raised), raised, _of_handler(raised.__traceback__)),
            )
        seconds = time.monotonic() - began
        try:
            if error is not None and not isinstance(error, Reject | Retry):
                self._pause()
            is_settled = self._settle(message, error)
            if error is None and not is_settled:
                error = LeaseLost([message.id])
                LOG.warning('%s', error)
        except ZaqarError as raised:
            error = error or raised
            LOG.warning('%r was not settled, and comes again: %s', message, raised)
        finally:
            self._running.pop(message.id, None)
        self._tell(message, seconds, error)

    def _pause(self) -> None:
        """Wait before a message that failed is given back, unless the queue delays its retry."""
        until = time.monotonic() + self._pause_seconds
        if self._pause_seconds and time.monotonic() >= self._settings_until:
            try:
                metadata = self._queue.get_metadata()
            except ZaqarError as error:
                LOG.info('The settings of %r are not known: %s', self._queue, error)
            else:
                self._delays_retries = bool(metadata.get('_retry_delay'))
                self._settings_until = time.monotonic() + _SETTINGS_SECONDS
        if self._delays_retries:
            return
        while not self._is_stopping:
            left = until - time.monotonic()
            if left <= 0:
                return
            io.sleep(min(left, _LOOK_SECONDS))

    def _settle(self, message: Message, error: Exception | None) -> bool:
        if error is None:
            return message.ack()
        if isinstance(error, Reject):
            return message.reject(error.reason)
        return message.release(delay=error.delay if isinstance(error, Retry) else None)

    def _tell(self, message: Message, seconds: float, error: Exception | None) -> None:
        try:
            with self._counting:
                self.succeeded += error is None
                self.failed += error is not None
            if error is None:
                if self._on_done is not None:
                    done = self._on_done
                    io.ask(lambda: done(message, seconds))
            else:
                failed, told = self._on_error, error
                if failed is not None:
                    io.ask(lambda: failed(message, seconds, told))
        except Exception:
            LOG.exception('A hook of the worker failed')


def _of_handler(traceback: types.TracebackType | None) -> types.TracebackType | None:
    """A traceback from the first frame on that is not the worker's."""
    own = (__name__, io.__name__)
    while traceback is not None and traceback.tb_frame.f_globals.get('__name__') in own:
        traceback = traceback.tb_next
    return traceback
