"""The errors that all stores of this project raise, beside those of `zaqar.storage.errors`.

zaqar.storage.errors.ConnectionError
├── StoreUnavailable     the store cannot be used now; a later request may succeed
│   ├── StoreDamaged     part of the store is damaged; a later request fails, too
│   └── OutcomeUnknown   the request was sent, and no answer came
├── UnsuitableStore      the store is set up in a way that the driver cannot work with
└── UndecodableValue     a stored value cannot be decoded
ScanTooLong              the store works, but a read took too long
"""

from __future__ import annotations

from oslo_config import cfg
from zaqar.storage import errors


class StoreUnavailable(errors.ConnectionError):
    """The store cannot be reached, read or written now; a later request may succeed.

    store: the store, as the subject of a sentence. reason: why, as the rest of it.
    """

    msg_format = '{store} is unavailable: {reason}'

    def __init__(self, store: str, reason: str) -> None:
        super().__init__(store=store, reason=reason)
        self.store = store
        self.reason = reason


class StoreDamaged(StoreUnavailable):
    """Part of the store is damaged. Requests that do not need that part are served.

    explanation: what a client is told.
    """

    msg_format = '{store} is damaged: {reason}'
    explanation = (
        'What is stored of this queue is damaged and cannot be used, and trying again will not '
        'help. The operator of the server is told more by the command "zaqar-gevent check".'
    )

    def __init__(self, store: str, reason: str, queue: tuple[str, str] | None = None) -> None:
        """queue: the project and the name of the queue whose call failed, if they are known."""
        if queue is not None:
            reason = f'{reason}, in the queue {queue[1]!r} of the project {queue[0]!r}'
        super().__init__(store, f'{reason}. All else is served; see: zaqar-gevent check')


class OutcomeUnknown(StoreUnavailable):
    """The request was sent and no answer came: it may have been performed or not.

    explanation: what a client is told.
    """

    msg_format = '{store} has not answered: {reason}'
    explanation = (
        'It may have been done or not. To repeat a post without making it twice, give it a '
        '`post_id`.'
    )


class UnsuitableStore(errors.ConnectionError, cfg.ConfigFileValueError):
    """The store is set up in a way that the driver cannot work with; retrying does not help."""

    msg_format = '{store} {reason}'

    def __init__(self, store: str, reason: str) -> None:
        super().__init__(store=store, reason=reason)
        self.store = store
        self.reason = reason


class UndecodableValue(errors.ConnectionError):
    """A stored message, or metadata of a queue, cannot be decoded.

    explanation: what a client is told.
    """

    msg_format = (
        'A stored value is garbled ({reason}); for the embedded store, see: zaqar-gevent check'
    )
    explanation = (
        'What is stored of this queue is damaged and cannot be used, and trying again will not '
        "help. The operator of the server finds more in the server's log."
    )

    def __init__(self, reason: str) -> None:
        super().__init__(reason=reason)
        self.reason = reason

    def in_queue(self, queue: str, project: str | None) -> UndecodableValue:
        """The same, with the place of the value."""
        return UndecodableValue(f'{self.reason}, in the queue {queue!r} of the project {project!r}')


class ScanTooLong(errors.ExceptionBase):
    """A read was broken off because it took too long.

    explanation: what a client is told.
    """

    msg_format = 'A read was broken off after {seconds:g} s'

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds=seconds)
        self.explanation = explain_scan(seconds)


def explain_scan(seconds: float) -> str:
    """The advice to a client whose read was broken off after so many seconds."""
    return (
        f'Reading took longer than the {seconds:g} s that it may ([drivers:transport:gevent] '
        'scan_timeout). Ask for less: a smaller limit, fewer or no filters, a later marker.'
    )


def is_logged(error: BaseException) -> bool:
    """Whether the failure of a request need not be logged.

    Stores log each outage once. A read that takes too long is no failure of the store.
    """
    return isinstance(error, StoreUnavailable | ScanTooLong)


def explanation_of(error: BaseException) -> str:
    """The text for a client about `error`, beside its status; may be empty."""
    if isinstance(error, StoreDamaged | OutcomeUnknown | UndecodableValue | ScanTooLong):
        return error.explanation
    return ''
