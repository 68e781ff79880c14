"""One connection to PostgreSQL: opened, and used in libpq's pipeline mode without waiting.

A batch of calls is one transaction: it is done when its last answer has come.
"""

from __future__ import annotations

import collections
import re
import select
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

import psycopg
from psycopg import conninfo, pq

from zaqar_gevent.storage.errors import StoreUnavailable, UnsuitableStore
from zaqar_gevent.storage.postgresql.addresses import Address

Row = tuple[bytes | None, ...]
Wait = Callable[[int, bool, float], bool]
"""Waits until a socket can be read, or with True written; False after so many seconds."""

LEAST_VERSION = 150000

UNDONE = '40000'
"""The SQLSTATE of a call that was undone together with others before it."""

_NAME = 'zaqar_gevent'
_BINARY = 1
_STATE = pq.DiagnosticField.SQLSTATE
_TEXT = pq.DiagnosticField.MESSAGE_PRIMARY
_SEVERITY = pq.DiagnosticField.SEVERITY_NONLOCALIZED
_ENDING = (b'FATAL', b'PANIC')
_UNPREPARED = '26000'
_ABORTED = pq.ExecStatus.PIPELINE_ABORTED
_SYNC = pq.ExecStatus.PIPELINE_SYNC
_TUPLES = pq.ExecStatus.TUPLES_OK
_DONE = pq.ExecStatus.COMMAND_OK
_GOOD = (_TUPLES, _DONE, _ABORTED)


class Merge(NamedTuple):
    """How calls of a statement are sent as one; see `merging`. By indices of its parameters.

    joined: arrays, of which each call has its own elements. latest: the one of the last call is
    sent. least: the smallest is sent, a number. distinct: an array; calls whose arrays are equal
    are not sent as one. All other parameters must be equal.
    """

    joined: tuple[int, ...]
    latest: int
    least: int | None = None
    distinct: int | None = None


class Statement(NamedTuple):
    """A statement with parameters `$1`, `$2`, ...

    name: by which it is prepared. is_repeatable: whether doing it twice does no harm. again: the
        index of the parameter that is to be true when it is done once more, if there is one.
        merge: how calls of it are sent as one, if they may be.
    """

    name: str
    text: str
    is_repeatable: bool = True
    again: int | None = None
    merge: Merge | None = None


class Sent(Protocol):
    """A request: a statement and its encoded parameters, with `rows` or a `failure` in the end.

    failure: SQLSTATE and text.
    """

    statement: Statement
    values: Any
    formats: Any
    rows: list[Row]
    failure: tuple[str, str] | None


LASTS = 'That does not mend itself: correct the configuration or the database.'

_LASTING = re.compile(
    'authentication failed|no password supplied|does not exist|no pg_hba.conf entry'
    '|permission denied|not permitted|not allow connections|invalid port|not support SSL'
    '|definition of service|(certificate|service) file|server certificate|certificate verify'
)


class Lost(OSError):
    """The connection is of no use any more; the reason in a few words."""


class LastWords:
    """The error with which a server ended a connection, if it told one.

    It is the connection's handler of notices: libpq takes an error that nobody waits for as one.
    """

    def __init__(self) -> None:
        self.text = ''

    def __call__(self, result: Any) -> None:
        if result.error_field(_SEVERITY) in _ENDING:
            self.text = read_failure(result)[1]


class Wire:
    """The connection, made by `connect`, in pipeline mode from now on.

    is_preparing: whether statements are prepared. Where something between shares the sessions of
        the server among others, that may not work.
    """

    def __init__(self, connection: Any, *, is_preparing: bool) -> None:
        connection.enter_pipeline_mode()
        self._connection = connection
        self._is_preparing = is_preparing
        # Statements that have been sent to be prepared, and those that are known to be prepared.
        self._prepared: set[str] = set()
        self._known: set[str] = set()
        # Of each batch the statements being prepared (names) and the calls, and then None.
        self._expected: collections.deque[Any] = collections.deque()
        self._last_words: LastWords = connection.notice_handler

    @property
    def fileno(self) -> int:
        return int(self._connection.socket)

    def send(self, calls: Iterable[Sent]) -> bool:
        """Send a batch; whether all is on its way, or `flush` has to be called. Raises `Lost`."""
        connection, expected = self._connection, self._expected
        try:
            for call in calls:
                statement = call.statement
                if self._is_preparing:
                    if statement.name not in self._prepared:
                        connection.send_prepare(statement.name.encode(), statement.text.encode())
                        self._prepared.add(statement.name)
                        expected.append(statement.name)
                    connection.send_query_prepared(
                        statement.name.encode(), call.values, call.formats, _BINARY
                    )
                else:
                    connection.send_query_params(
                        statement.text.encode(), call.values, None, call.formats, _BINARY
                    )
                expected.append(call)
            connection.pipeline_sync()
            expected.append(None)
        except psycopg.Error as error:
            raise Lost(_explain(self._connection, error)) from None
        return self.flush()

    def flush(self) -> bool:
        """Send what could not be sent at once; whether that was all. Raises `Lost`."""
        try:
            return not self._connection.flush()
        except psycopg.Error as error:
            raise Lost(_explain(self._connection, error)) from None

    def receive(self) -> Iterator[None]:
        """Read what has come; yields once for each batch that is done. Raises `Lost`."""
        connection = self._connection
        try:
            connection.consume_input()
            while self._expected and not connection.is_busy():
                result = connection.get_result()
                if result is None:
                    self._check()
                elif result.status == _SYNC:
                    while self._expected.popleft() is not None:
                        # After an error nothing more is said of these.
                        pass
                    yield
                else:
                    self._take(result)
        except psycopg.Error as error:
            raise Lost(self._last_words.text or _describe(error)) from None
        self._check()

    def is_alive(self) -> bool:
        """Whether the connection is open, as far as is known while nothing is expected."""
        connection = self._connection
        try:
            # The first may be a last word of the server, and the end comes behind it.
            for _ in range(2):
                connection.consume_input()
        except psycopg.Error:
            return False
        return bool(connection.status == pq.ConnStatus.OK)

    def close(self) -> None:
        with suppress(psycopg.Error):
            self._connection.finish()

    def _take(self, result: Any) -> None:
        """The result of the oldest expected request."""
        status, awaited = result.status, self._expected[0]
        failure = None if status in _GOOD else read_failure(result)
        if failure is not None:
            self._last_words(result)
        if awaited is None:
            if failure is not None:
                raise Lost(failure[1])
            return
        self._expected.popleft()
        if isinstance(awaited, str):
            if status == _DONE:
                self._known.add(awaited)
            else:
                self._prepared.discard(awaited)
            if failure is not None:
                self._fail_batch(failure)
        elif failure is not None:
            if failure[0] == _UNPREPARED and awaited.statement.name not in self._known:
                # It was to be prepared in the batch before this one, which was undone.
                failure = (UNDONE, failure[1])
            awaited.failure = failure
        elif status == _TUPLES:
            awaited.rows = [
                tuple(result.get_value(row, column) for column in range(result.nfields))
                for row in range(result.ntuples)
            ]

    def _check(self) -> None:
        connection = self._connection
        if connection.status == pq.ConnStatus.BAD:
            raise Lost(self._last_words.text or _tidy(connection.get_error_message()))

    def _fail_batch(self, failure: tuple[str, str]) -> None:
        """A statement could not be prepared: that is a failure of the next call."""
        for awaited in self._expected:
            if awaited is None:
                return
            if not isinstance(awaited, str):
                awaited.failure = failure
                return


def connect(address: Address, wait: Wait, resolve: Callable[..., Any]) -> Any:
    """A connection of libpq's to the server that is to be written, which does not wait.

    wait: waits for the socket. resolve: `getaddrinfo` of a module whose sockets wait.

    Raises `StoreUnavailable`, or `UnsuitableStore`.
    """
    reasons = []
    for parameters in address.attempts():
        try:
            connection = _connect(address, parameters, wait, resolve)
        except Lost as lost:
            reasons.append(str(lost))
            continue
        try:
            _check(address, connection)
            connection.nonblocking = 1
        except BaseException:
            connection.finish()
            raise
        return connection
    raise StoreUnavailable(address.store, '; '.join(dict.fromkeys(reasons)))


def _connect(
    address: Address, parameters: dict[str, Any], wait: Wait, resolve: Callable[..., Any]
) -> Any:
    host = parameters.get('host')
    if host and 'hostaddr' not in parameters and not host.startswith(('/', '@')):
        try:
            found = resolve(host, None)
        except OSError as error:
            raise Lost(f'{host}: {error.strerror or error}') from None
        # libpq would wait for the name service, and all with it.
        addresses = list(dict.fromkeys(one[4][0] for one in found))
        parameters = {
            **parameters,
            'host': ','.join([host] * len(addresses)),
            'hostaddr': ','.join(addresses),
            'port': ','.join([parameters.get('port', '')] * len(addresses)),
        }
    # A standby is as good as no server, whatever the URI says.
    given = {
        'application_name': _NAME,
        'target_session_attrs': 'read-write',
        **parameters,
        'client_encoding': 'UTF8',
    }
    deadline = time.monotonic() + address.timeout
    connection = pq.PGconn.connect_start(conninfo.make_conninfo('', **given).encode())
    try:
        while True:
            if connection.status == pq.ConnStatus.BAD:
                raise Lost(_tidy(connection.get_error_message()))
            state = connection.connect_poll()
            if state == pq.PollingStatus.OK:
                break
            if state == pq.PollingStatus.FAILED:
                raise Lost(_tidy(connection.get_error_message()))
            left = deadline - time.monotonic()
            is_writing = state == pq.PollingStatus.WRITING
            if left <= 0 or not wait(connection.socket, is_writing, left):
                raise Lost('it does not answer')
    except psycopg.Error as error:
        connection.finish()
        raise Lost(_describe(error)) from None
    except BaseException:
        connection.finish()
        raise
    connection.notice_handler = LastWords()
    return connection


def _check(address: Address, connection: Any) -> None:
    """Raise `UnsuitableStore` for a server that cannot keep messages."""
    version = connection.server_version
    if version < LEAST_VERSION:
        raise UnsuitableStore(address.store, f'is {version // 10000}; it must be 15 or later.')
    encoding = (connection.parameter_status(b'server_encoding') or b'UTF8').decode()
    if encoding != 'UTF8':
        raise UnsuitableStore(
            address.store, f'has a database whose encoding is {encoding}; it must be UTF8.'
        )


def wait_in_thread(descriptor: int, is_writing: bool, seconds: float) -> bool:
    """Wait for a socket where there are no greenlets."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT if is_writing else select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def read_failure(result: Any) -> tuple[str, str]:
    """The SQLSTATE and the text of an error."""
    state = (result.error_field(_STATE) or b'').decode()
    text = (result.error_field(_TEXT) or result.error_message.encode() or b'').decode()
    return state, text


def finish(connection: Any, wait: Wait, seconds: float) -> Any:
    """The result of what has been sent to a connection that is not in pipeline mode.

    The first error, if there is one, otherwise the last result. Raises `Lost`.
    """
    deadline = time.monotonic() + seconds
    failed = last = None
    try:
        while True:
            while connection.flush():
                _await(connection, wait, True, deadline)
            while connection.is_busy():
                _await(connection, wait, False, deadline)
                connection.consume_input()
            result = connection.get_result()
            if result is None:
                return failed or last
            last = result
            if result.status == pq.ExecStatus.FATAL_ERROR and failed is None:
                failed = result
    except psycopg.Error as error:
        if failed is not None:
            return failed
        raise Lost(_explain(connection, error)) from None


def lasts(reason: str) -> bool:
    """Whether a connection that failed for this reason fails again until something is changed.

    libpq gives no SQLSTATE for it. In another language than English it is taken for an outage.
    """
    return _LASTING.search(reason) is not None


def _await(connection: Any, wait: Wait, is_writing: bool, deadline: float) -> None:
    left = deadline - time.monotonic()
    if left <= 0 or not wait(connection.socket, is_writing, left):
        raise Lost('it does not answer')


def _explain(connection: Any, error: psycopg.Error) -> str:
    """Why a connection is lost: what the server said last, or libpq's reason."""
    words: LastWords = connection.notice_handler
    with suppress(psycopg.Error):
        connection.consume_input()
    with suppress(psycopg.Error):
        # What it sent before is of no use any more.
        while not connection.is_busy() and (result := connection.get_result()) is not None:
            words(result)
    return words.text or _describe(error)


def _describe(error: psycopg.Error) -> str:
    return _tidy(str(error)) or type(error).__name__


def _tidy(text: str) -> str:
    return ' '.join(text.split()) or 'it has closed the connection'
