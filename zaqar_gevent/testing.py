"""For tests of programs that use Zaqar: a real server on a free port, in a temporary directory.

With pytest, in `conftest.py`::

    pytest_plugins = ['zaqar_gevent.testing']

Then a test may ask for `zaqar_server`, one server for the whole session, or for `zaqar`, a client
of it whose queues no other test sees. Without pytest, `Server` is a context manager.
"""

from __future__ import annotations

import contextlib
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator
from typing import Self

import pytest

from zaqar_gevent.client import Client

START_SECONDS = 30.0
STOP_SECONDS = 30.0

_LISTENING = re.compile(r'on (http://\S+:\d+), store')


class Server:
    """The command `zaqar-gevent` on a free port of this machine, with the embedded store.

    options: more options of the command. url: where it listens. Its messages are gone when it
    stops.
    """

    def __init__(self, *options: str) -> None:
        self._options = options
        self._stack = contextlib.ExitStack()
        self._process: subprocess.Popen[str] | None = None
        self._output: list[str] = []
        self._listens = threading.Event()
        self.url = ''

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it and wait until it listens; raises RuntimeError, with its output, otherwise."""
        directory = self._stack.enter_context(tempfile.TemporaryDirectory(prefix='zaqar-'))
        command = [sys.executable, '-m', 'zaqar_gevent.cmd', '--port', '0']
        self._process = subprocess.Popen(  # noqa: S603 this package's own command
            [*command, '--state-path', directory, *self._options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=pathlib.Path(directory),
        )
        threading.Thread(target=self._read, args=(self._process,), daemon=True).start()
        if not self._listens.wait(START_SECONDS) or not self.url:
            self.stop()
            raise RuntimeError('The server did not start:\n' + '\n'.join(self._output))

    def stop(self) -> None:
        """Stop it and remove what it has stored."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._stack.close()

    def client(self, project: str | None = None) -> Client:
        """A client of it; without a project, of a new one. To be closed by the caller."""
        return Client(self.url, project=project or uuid.uuid4().hex)

    def _read(self, process: subprocess.Popen[str]) -> None:
        for line in process.stdout or ():
            self._output.append(line.rstrip('\n'))
            found = _LISTENING.search(line)
            if found is not None and not self.url:
                self.url = found[1]
                self._listens.set()
        self._listens.set()


@pytest.fixture(scope='session')
def zaqar_server() -> Iterator[Server]:
    """A server for the whole session."""
    with Server() as server:
        yield server


@pytest.fixture
def zaqar(zaqar_server: Server) -> Iterator[Client]:
    """A client in a project of its own, so that no other test sees its queues."""
    with zaqar_server.client() as client:
        yield client
