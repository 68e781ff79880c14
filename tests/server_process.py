"""A real server in a process of its own, for tests."""

from __future__ import annotations

import os
import pathlib
import re
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Sequence

from tests.fork_server import start_forked

COMMAND = (sys.executable, '-m', 'zaqar_gevent.cmd')
_LISTENING = re.compile(r'http://(?P<host>[^ ]+):(?P<port>\d+), store (?P<store>\S+)')
START_SECONDS = 60


class ServerProcess:
    """The `zaqar-gevent` command on a free port.

    env: variables of its environment, beside those of the tests.
    state_path: where it keeps what it keeps. output: the lines it printed, as they come.
    """

    CHANGES = ''
    """Statements that change the server's program, run before it is imported."""

    def __init__(
        self,
        state_path: pathlib.Path,
        *options: str,
        config: str | None = None,
        env: dict[str, str] | None = None,
    ) -> None:
        self._command = [
            *COMMAND,
            *('--port', '0', '--state-path', str(state_path)),
            *options,
        ]
        if config is not None:
            state_path.mkdir(parents=True, exist_ok=True)
            file = state_path / 'zaqar.conf'
            file.write_text(textwrap.dedent(config))
            self._command += ['--config-file', str(file)]
        self._env = env
        self.state_path = state_path
        self.output: list[str] = []
        self.port = 0

    def __enter__(self) -> ServerProcess:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server and wait until it says where it listens."""
        if tuple(self._command[: len(COMMAND)]) == COMMAND:
            arguments = self._command[len(COMMAND) :]
            self._process = start_forked(arguments, self.CHANGES, self._env)
        else:
            env = self._env and {**os.environ, **self._env}
            self._process = start_process(self._command, env)
        ready = threading.Event()
        self._reader = threading.Thread(target=self._read, args=(ready,), daemon=True)
        self._reader.start()
        if not ready.wait(START_SECONDS) or not self.port:
            self.kill()
            raise AssertionError('the server did not start:\n' + '\n'.join(self.output))

    def _read(self, ready: threading.Event) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.output.append(line.rstrip())
            match = _LISTENING.search(line)
            if match:
                self.port = int(match['port'])
                ready.set()
        ready.set()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def url(self) -> str:
        return f'http://127.0.0.1:{self.port}'

    @property
    def websocket_url(self) -> str:
        return f'ws://127.0.0.1:{self.port}/'

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask the server to stop and return its exit status."""
        self._process.send_signal(number)
        status = self._process.wait(START_SECONDS)
        self._finish()
        return status

    def kill(self) -> None:
        """End the server as a crash would."""
        self._process.kill()
        self._process.wait()
        self._finish()

    def _finish(self) -> None:
        self._reader.join()
        if self._process.stdout is not None:
            self._process.stdout.close()


def start_process(command: Sequence[str], env: dict[str, str] | None) -> subprocess.Popen[str]:
    """Start `command` with its output and errors in one pipe."""
    return subprocess.Popen(
        command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
