"""Upstream's own WebSocket server in a process of its own, for tests."""

from __future__ import annotations

import os
import pathlib
import socket
import subprocess
import sys
import time

from tests.ports import free_port
from tests.redis_process import ON_REDIS

START_SECONDS = 60

COMMAND = """
import asyncio
from zaqar.cmd import server
asyncio.set_event_loop(asyncio.new_event_loop())
server.run()
"""
"""Upstream's own command, in a Python that makes no event loop of its own accord."""

_CONFIG = (
    ON_REDIS
    + """
[DEFAULT]
enable_deprecated_api_versions =
[drivers]
transport = websocket
[drivers:transport:websocket]
port = {port}
notification_bind = 127.0.0.1
[storage]
message_pipeline = zaqar.notification.notifier
[profiler]
enabled = False
"""
)


class UpstreamProcess:
    """`zaqar-server` with its WebSocket transport on a free port, on Redis."""

    def __init__(self, directory: pathlib.Path, redis_uri: str) -> None:
        self.port = free_port()
        config = directory / 'upstream.conf'
        config.write_text(_CONFIG.format(redis=redis_uri, port=self.port))
        self._command = [sys.executable, '-c', COMMAND, '--config-file', str(config)]
        self._log = directory / 'upstream.log'

    def __enter__(self) -> UpstreamProcess:
        with self._log.open('w') as log:
            self._process = subprocess.Popen(
                self._command, env=dict(os.environ), stdout=log, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._listens():
            running = self._process.poll() is None and time.monotonic() < deadline
            assert running, f'upstream does not start:\n{self.log()}'
            time.sleep(0.05)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.terminate()
        self._process.wait()

    def log(self) -> str:
        """What it has said."""
        return self._log.read_text()

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(('127.0.0.1', self.port)) == 0
