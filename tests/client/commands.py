"""The subcommands of `zaqar-gevent`, run in a pipe or on a terminal."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from tests.fork_server import CLIENT, run_forked
from tests.readiness import readable

WHOLE_LINES = """
import sys

def print(*words):
    sys.stdout.write(' '.join(map(str, words)) + '\\n')
    sys.stdout.flush()

"""
"""What to put before a program whose threads print, so that their lines do not mix."""

COMMAND = (sys.executable, '-m', 'zaqar_gevent.cmd')
SECONDS = 60


class Shell:
    """Where commands are run: the environment that they share. Leaving it ends what still runs."""

    def __init__(self, url: str, project: str, **environment: str) -> None:
        inherited = {name: value for name, value in os.environ.items() if 'ZAQAR' not in name}
        self.env = {
            **inherited,
            'ZAQAR_URL': url,
            'ZAQAR_PROJECT': project,
            'TERM': 'xterm',
            'COLUMNS': '100',
            **environment,
        }
        self._started: list[subprocess.Popen[Any]] = []

    def __enter__(self) -> Shell:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for process in self._started:
            process.kill()
            process.wait()

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """Run a command whose output goes into pipes."""
        pipes = dict.fromkeys(('stdin', 'stdout', 'stderr'), subprocess.PIPE)
        process = subprocess.Popen(
            [*COMMAND, *arguments], env=self.env, text=True, **{**pipes, **options}
        )
        self._started.append(process)
        return process

    def run(self, *arguments: str, given: str = '') -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return run_forked(*arguments, given=given, env=self.env, kind=CLIENT)

    def records(self, *arguments: str, given: str = '') -> list[Any]:
        """The JSON lines of a command that goes well."""
        finished = self.run(*arguments, given=given)
        assert (finished.returncode, finished.stderr) == (0, '')
        return [json.loads(line) for line in finished.stdout.splitlines()]

    def failure(self, *arguments: str) -> tuple[int, str]:
        """The exit status of a command that goes wrong, and the one line about it."""
        finished = self.run(*arguments)
        assert finished.stdout == ''
        [line] = finished.stderr.splitlines()
        return finished.returncode, line

    def on_terminal(self, *arguments: str, **options: Any) -> Terminal:
        """Run a command on a terminal of its own."""
        terminal = Terminal(arguments, self.env, **options)
        self._started.append(terminal.process)
        return terminal


class Terminal:
    """A command on a terminal; `shown` is what has been written to it."""

    def __init__(self, arguments: Sequence[str], env: dict[str, str], **options: Any) -> None:
        self._master, slave = pty.openpty()
        ends = dict.fromkeys(('stdin', 'stdout', 'stderr'), slave)
        self.process = subprocess.Popen(
            [*COMMAND, *arguments], env=env, start_new_session=True, **{**ends, **options}
        )
        os.close(slave)
        self.shown = ''

    def read_until(self, is_enough: Callable[[str], bool]) -> str:
        """Read until it shows enough."""
        deadline = time.monotonic() + SECONDS
        while not is_enough(self.shown):
            assert time.monotonic() < deadline, self.shown
            assert self._read(deadline), self.shown
        return self.shown

    def finish(self) -> int:
        """Read to the end; gives the exit status."""
        deadline = time.monotonic() + SECONDS
        while self._read(deadline):
            assert time.monotonic() < deadline, self.shown
        os.close(self._master)
        return self.process.wait(SECONDS)

    def interrupt(self) -> int:
        """Press Ctrl-C; gives the exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.finish()

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def _read(self, deadline: float) -> bool:
        """Whether there was anything, or may be yet."""
        ready = readable([self._master], max(deadline - time.monotonic(), 0))
        try:
            data = os.read(self._master, 65536) if ready else b''
        except OSError:
            # What Linux says when nobody has the other end open any more.
            return False
        self.shown += data.decode()
        return bool(data)
