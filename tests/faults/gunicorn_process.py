"""gunicorn with the application, in a process of its own."""

from __future__ import annotations

import os
import pathlib
import re
import sys
import textwrap
import threading

import requests

from tests.functional.test_gunicorn import OUR_WORKER
from tests.server_process import START_SECONDS, ServerProcess

_LISTENING = re.compile(r'Listening at: http://127\.0\.0\.1:(\d+)')
_BOOTED = 'Booting worker'


class GunicornProcess(ServerProcess):
    """Started and stopped like the command; `state_path` is its home."""

    def __init__(
        self,
        state_path: pathlib.Path,
        *options: str,
        worker: str = OUR_WORKER,
        config: str | None = None,
        env: dict[str, str] | None = None,
    ) -> None:
        super().__init__(state_path)
        self._command = [
            *(sys.executable, '-m', 'gunicorn', '-k', worker, '-b', '127.0.0.1:0'),
            *('--no-control-socket', *options, 'zaqar_gevent.wsgi:app'),
        ]
        home = {'XDG_STATE_HOME': str(state_path), 'HOME': str(state_path)}
        self._env = {**os.environ, **home, **(env or {})}
        if config is not None:
            file = state_path / '.zaqar' / 'zaqar.conf'
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(textwrap.dedent(config))

    def start(self) -> None:
        """Start it and wait until a worker answers."""
        super().start()
        requests.get(f'{self.url}/', timeout=START_SECONDS)

    def _read(self, ready: threading.Event) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.output.append(line.rstrip())
            match = _LISTENING.search(line)
            if match:
                self.port = int(match[1])
            if _BOOTED in line:
                ready.set()
        ready.set()
