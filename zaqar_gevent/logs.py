"""Sets up the log: where it goes, and the loggers that are kept out of it."""

from __future__ import annotations

import logging
import re
import sys

from oslo_config import cfg
from oslo_log import log

from zaqar_gevent.storage.errors import is_logged

# Upstream's notification tasks log a traceback for each try.
_NOTIFICATION_TASKS = 'zaqar.notification'
_QUERY = re.compile(r'(/[^\s?\'"<>]*)\?[^\s\'"<>)\\]+')


def set_up(conf: cfg.ConfigOpts) -> None:
    """Log as the configuration says, and to standard error where it names no other place.

    Standard output is for what a program waits for that starts the server: a log there would fill
    its pipe, and stop the server, when nobody reads on.
    """
    log.setup(conf, 'zaqar')
    for handler in logging.getLogger().handlers:
        handler.addFilter(shorten_deliveries)
        handler.setFormatter(Redacting(handler.formatter or logging.Formatter()))
        if not conf.log_config_append and _writes_to_stdout(handler):
            handler.setStream(sys.stderr)  # type: ignore[attr-defined]


def level_of(error: BaseException, usual: int) -> int:
    """The level at which to log what `error` made fail: DEBUG if its cause has been logged.

    Stores log each of their outages themselves, once.
    usual: the level of any other error.
    """
    return logging.DEBUG if is_logged(error) else usual


def shorten_deliveries(record: logging.LogRecord) -> bool:
    """A filter that drops nothing: makes one line of a failed delivery, without the traceback."""
    if record.exc_info and record.name.startswith(_NOTIFICATION_TASKS):
        kind = record.exc_info[0]
        message = ' '.join(record.getMessage().split())
        record.msg = f'{message} ({kind.__name__})' if kind else message
        record.args = record.exc_info = record.exc_text = None
    return True


class FirstTimes:
    """Tells what was seen before, so that each thing is logged once.

    most: how many things are remembered; after so many, nothing counts as new any more, so that
    clients cannot fill the log.
    """

    def __init__(self, most: int = 100) -> None:
        self._most = most
        self._seen: set[str] = set()

    def is_first(self, what: str) -> bool:
        """Whether this is the first time, and to be logged."""
        if what in self._seen or len(self._seen) >= self._most:
            return False
        self._seen.add(what)
        return True


class Redacting(logging.Formatter):
    """Another formatter's text, from which the queries of URLs are taken: they may hold secrets.

    It looks at the whole text, since oslo.log adds the message of an exception to it.
    """

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self._formatter = formatter

    def format(self, record: logging.LogRecord) -> str:
        """The text of a record."""
        return _QUERY.sub(r'\1?...', self._formatter.format(record))


def _writes_to_stdout(handler: logging.Handler) -> bool:
    return isinstance(handler, logging.StreamHandler) and handler.stream is sys.stdout
