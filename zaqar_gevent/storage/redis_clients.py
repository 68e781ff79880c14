"""Clients of upstream's drivers for Redis, which give up within a few seconds.

Three things repeat a call that fails: redis-py as it connects, redis-py as it sends, and upstream's
controllers, whose default alone is to wait 17 minutes. Here redis-py repeats a call once, at once,
for a connection that was closed while nobody used it; the controllers do the rest, within bounds.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from zaqar.storage.redis import driver as upstream

SOCKET_SECONDS = 1.0
"""How long a call waits for Redis where the URI does not say it."""
MOST_ATTEMPTS = 3
MOST_SLEEP = 1.0
"""How long an operation sleeps between its attempts, in seconds, all in all."""


def bound() -> None:
    """Bound the clients that drivers make from now on."""
    if not isinstance(upstream._get_redis_client, _Maker):
        upstream._get_redis_client = _Maker(upstream._get_redis_client)


class _Maker:
    """Makes the client of a driver."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self._make = make

    def __call__(self, driver: Any) -> Any:
        client = self._make(driver)
        sentinel = getattr(client.connection_pool, 'sentinel_manager', None)
        for one in (client, *(sentinel.sentinels if sentinel else ())):
            settings = one.get_connection_kwargs()
            if not _names_timeout(driver.redis_conf.uri):
                settings['socket_timeout'] = SOCKET_SECONDS
            settings['socket_connect_timeout'] = settings['socket_timeout']
            one.set_retry(_Once())
        driver.redis_conf = _Patience(driver.redis_conf)
        return client


class _Once(Retry):
    """Repeats a call once if the connection is closed, and not if Redis does not answer.

    Raises `redis.ConnectionError` for both, which is what upstream knows.
    """

    def __init__(self) -> None:
        super().__init__(NoBackoff(), 1, (redis.ConnectionError,))

    def call_with_retry(self, do: Any, fail: Any, *args: Any, **named: Any) -> Any:
        try:
            return super().call_with_retry(do, fail, *args, **named)
        except (redis.TimeoutError, TimeoutError) as error:
            # redis-py has closed the connection, on which the answer might still come.
            raise redis.ConnectionError(str(error)) from error


class _Patience:
    """A driver's configuration, whose attempts and sleeps are bounded."""

    def __init__(self, conf: Any) -> None:
        self._conf = conf

    def __getattr__(self, name: str) -> Any:
        return getattr(self._conf, name)

    @property
    def max_reconnect_attempts(self) -> int:
        """How often a call is tried, at least once."""
        attempts: int = self._conf.max_reconnect_attempts
        return min(max(1, attempts), MOST_ATTEMPTS)

    @property
    def reconnect_sleep(self) -> float:
        """Seconds after the first attempt; upstream doubles them after each."""
        seconds: float = self._conf.reconnect_sleep
        times: int = 2**self.max_reconnect_attempts - 1
        return min(seconds, MOST_SLEEP / times)


def _names_timeout(uri: str) -> bool:
    query = urllib.parse.urlsplit(uri).query
    return 'socket_timeout' in urllib.parse.parse_qs(query)
