"""The access log: one line of JSON for each request, without bodies, tokens and signatures."""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import logging.handlers
import sys

import msgspec

from zaqar_gevent import options
from zaqar_gevent.conf import ConfigurationError

STANDARD_ERROR = '-'
MAX_CHARACTERS = 256


class _Entry(msgspec.Struct, kw_only=True):
    """The members of a line, in order."""

    time: str
    request_id: str | None
    transport: str
    operation: str
    status: int
    duration_ms: float
    project_id: str | None
    user_id: str | None
    client_id: str | None
    remote: str | None
    bytes_in: int | None
    bytes_out: int | None
    method: str | msgspec.UnsetType = msgspec.UNSET
    path: str | msgspec.UnsetType = msgspec.UNSET
    trace_id: str | msgspec.UnsetType = msgspec.UNSET


class AccessLog:
    """Writes a line about each request.

    enabled: whether they are. PERF: to be asked before the fields are gathered.
    """

    def __init__(self, target: str) -> None:
        """Open the log.

        target: a path, which is opened anew when the file is moved away; `-` for standard error;
            nothing for no log.

        Raises `ConfigurationError` where the file cannot be written.
        """
        self.enabled = bool(target)
        # Not one of those that logging knows by name: the log's configuration is not for this one.
        self._logger = logging.Logger('zaqar_gevent.access', logging.INFO)
        self._logger.propagate = False
        if self.enabled:
            self._logger.addHandler(_open(target))

    def write(
        self,
        *,
        request_id: str | None,
        transport: str,
        operation: str,
        status: int,
        seconds: float,
        project_id: str | None,
        user_id: str | None,
        client_id: str | None,
        remote: str | None,
        bytes_in: int | None,
        bytes_out: int | None,
        method: str | None = None,
        path: str | None = None,
        trace_id: str | None = None,
    ) -> None:
        """Write down one request that was answered.

        transport, operation, status, seconds: as for `metrics.observe_request`.
        remote: the client's address.
        bytes_in, bytes_out: the size of body or message; None where it is not known.
        method, path: of REST only; the path without its query.
        trace_id: of the trace that the request belongs to, where it says so.

        Of a text no more than MAX_CHARACTERS is kept. A failing disk is reported on standard error
        and does not fail the request.
        """
        if not self.enabled:
            return
        entry = _Entry(
            time=_now(),
            request_id=_shorten(request_id),
            transport=transport,
            operation=operation,
            status=status,
            duration_ms=round(seconds * 1000, 3),
            project_id=_shorten(project_id),
            user_id=_shorten(user_id),
            client_id=_shorten(client_id),
            remote=_shorten(remote),
            bytes_in=bytes_in,
            bytes_out=bytes_out,
            method=_shorten(method) or msgspec.UNSET,
            path=_shorten(path) or msgspec.UNSET,
            trace_id=trace_id or msgspec.UNSET,
        )
        # PERF: Logger.info would look for its caller in the stack.
        name, level = self._logger.name, logging.INFO
        self._logger.handle(logging.LogRecord(name, level, '', 0, _encode(entry), None, None))

    def close(self) -> None:
        """Close the file; nothing is written any more."""
        self.enabled = False
        for handler in list(self._logger.handlers):
            self._logger.removeHandler(handler)
            handler.close()


class _FileHandler(logging.handlers.WatchedFileHandler):
    """A file that may be moved away, and for a while not be writable."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line; where the file cannot be opened anew, report it as any other failure."""
        try:
            super().emit(record)
        except OSError:
            self.handleError(record)


def _open(target: str) -> logging.Handler:
    if target == STANDARD_ERROR:
        return logging.StreamHandler(sys.stderr)
    try:
        return _FileHandler(target, encoding='utf-8')
    except OSError as error:
        raise ConfigurationError(
            f'[{options.GROUP}] access_log: {target} cannot be written: {error.strerror}'
        ) from None


def _now() -> str:
    """The time by RFC 3339, in UTC and milliseconds."""
    now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    return now.isoformat(timespec='milliseconds') + 'Z'


def _shorten(text: str | None) -> str | None:
    return text and text[:MAX_CHARACTERS]


_encoder = msgspec.json.Encoder()


def _encode(entry: _Entry) -> str:
    """One line of ASCII: there are ends of lines and commands to terminals beyond it too."""
    with contextlib.suppress(UnicodeEncodeError):
        line = _encoder.encode(entry)
        if line.isascii():
            return line.decode()
    return json.dumps(msgspec.to_builtins(entry))
