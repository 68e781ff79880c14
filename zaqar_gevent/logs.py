"""Where the log goes, and what is kept out of it."""

from __future__ import annotations

import logging
import re
import sys

from oslo_config import cfg
from oslo_log import log

# Upstream's notification tasks log a traceback for each try.
_NOTIFICATION_TASKS = 'zaqar.notification'
_QUERY = re.compile(r'(/[^\s?\'"<>]*)\?[^\s\'"<>)]+')


def set_up(conf: cfg.ConfigOpts) -> None:
    """Log as the configuration says, and to standard error where it names no other place.

    Standard output is for what a program waits for that starts the server: a log there would fill
    its pipe, and stop the server, when nobody reads on.
    """
    log.setup(conf, 'zaqar')
    redact = Redaction()
    for handler in logging.getLogger().handlers:
        handler.addFilter(redact)
        if not conf.log_config_append and _writes_to_stdout(handler):
            handler.setStream(sys.stderr)  # type: ignore[attr-defined]


class Redaction(logging.Filter):
    """Takes out the queries of URLs, which may hold secrets, and tracebacks of deliveries."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record; it is never dropped."""
        message = record.getMessage()
        if record.exc_info and record.name.startswith(_NOTIFICATION_TASKS):
            kind = record.exc_info[0]
            message = f'{message} ({kind.__name__})' if kind else message
            record.exc_info = record.exc_text = None
            message = ' '.join(message.split())
        redacted = _QUERY.sub(r'\1?...', message)
        if redacted != record.msg:
            record.msg, record.args = redacted, None
        return True


def _writes_to_stdout(handler: logging.Handler) -> bool:
    return isinstance(handler, logging.StreamHandler) and handler.stream is sys.stdout
