"""What is kept out of the log."""

from __future__ import annotations

import io
import logging

import pytest

from zaqar_gevent.logs import Redaction


def logged(name: str, message: str, *arguments: object, error: Exception | None = None) -> str:
    """What a log says of one record."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(Redaction())
    logger = logging.Logger(name)
    logger.addHandler(handler)
    try:
        if error is not None:
            raise error
        logger.error(message, *arguments)
    except Exception:
        logger.exception(message, *arguments)
    return stream.getvalue()


@pytest.mark.parametrize(
    ('message', 'kept'),
    [
        ('POST http://a.example/hook?token=secret failed', 'POST http://a.example/hook?... failed'),
        ('HTTPPool(a.example): url: /hook?k=secret&l=secret (Caused by x)', None),
        ("the subscriber 'https://a.example/?secret' is gone", None),
        ('http://a.example?secret', 'http://a.example?...'),
    ],
)
def test_queries_of_urls_are_left_out(message: str, kept: str | None) -> None:
    for line in (logged('zaqar', message), logged('zaqar', '%s', message)):
        assert 'secret' not in line
        assert '?...' in line
        assert kept is None or line == f'{kept}\n'


@pytest.mark.parametrize('message', ['really? yes', 'a/b ? c', '100 %', 'what?', '/path?'])
def test_other_messages_stay_as_they_are(message: str) -> None:
    assert logged('zaqar', message) == f'{message}\n'


def test_a_failed_delivery_is_one_line() -> None:
    error = ConnectionError('Max retries exceeded with url: /hook?token=secret')
    line = logged(
        'zaqar.notification.tasks.webhook', 'webhook task got exception: %s.', error, error=error
    )
    assert line.count('\n') == 1
    assert 'Traceback' not in line
    assert 'secret' not in line
    assert 'ConnectionError' in line


def test_other_errors_keep_their_tracebacks() -> None:
    assert 'Traceback' in logged('zaqar_gevent.api', 'message_post failed', error=ValueError('x'))
