"""What is kept out of the log."""

from __future__ import annotations

import io
import logging

import pytest
from oslo_config import cfg
from oslo_log import formatters, log

from zaqar_gevent.logs import Redacting, level_of, shorten_deliveries
from zaqar_gevent.storage.sqlite import StoreUnavailable


def logged(
    name: str,
    message: str,
    *arguments: object,
    error: Exception | None = None,
    is_oslo: bool = False,
) -> str:
    """What a log says of one record, formatted by logging's own formatter or by oslo.log's."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(shorten_deliveries)
    conf = cfg.ConfigOpts()
    log.register_options(conf)
    conf([])
    formatter = formatters.ContextFormatter(config=conf)
    handler.setFormatter(Redacting(formatter if is_oslo else logging.Formatter()))
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


@pytest.mark.parametrize('is_oslo', [False, True])
def test_a_failed_delivery_is_one_line(is_oslo: bool) -> None:
    error = ConnectionError('Max retries exceeded with url: /hook?token=secret')
    line = logged(
        'zaqar.notification.tasks.webhook',
        'webhook task got exception: %s.',
        error,
        error=error,
        is_oslo=is_oslo,
    )
    assert line.count('\n') == 1
    assert 'Traceback' not in line
    assert 'secret' not in line
    assert 'ConnectionError' in line


@pytest.mark.parametrize('is_oslo', [False, True])
def test_other_errors_keep_their_tracebacks_without_queries(is_oslo: bool) -> None:
    error = ValueError('cannot reach http://a.example/v3?token=secret now')
    text = logged('zaqar_gevent.api', 'message_post failed', error=error, is_oslo=is_oslo)
    assert 'Traceback' in text
    assert 'secret' not in text.split('raise error')[-1]
    assert 'http://a.example/v3?... now' in text


def test_what_follows_from_a_logged_outage_is_for_debugging() -> None:
    outage = StoreUnavailable('/store', 'it has been moved')
    assert level_of(outage, logging.ERROR) == logging.DEBUG
    assert level_of(OSError('refused'), logging.ERROR) == logging.ERROR
    assert level_of(OSError('refused'), logging.WARNING) == logging.WARNING
