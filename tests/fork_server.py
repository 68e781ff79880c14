"""Starts servers and commands by forking a process that has imported what they need.

Of the processor time that a server takes to start, three quarters are imports, and the tests start
hundreds of servers. The fork server makes these imports once, as the command makes them, and forks
for each server. The forked process runs the `main` of the command from the beginning. The process
of the tests has one fork server, from the first start on, one for each set of changes that tests
make to servers, and one each for the commands that work on stores and for those of the client:
these do not patch the standard library.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any

from tests.readiness import readable

# What the command imports once it knows what it is to do, and the drivers of all stores.
_DRIVERS = (
    'dogpile.cache.backends.null',
    'zaqar_gevent.storage.postgresql.driver',
    'zaqar_gevent.storage.redis.driver',
)
_FOR_SERVERS = ('zaqar_gevent.server', 'zaqar_gevent.program', *_DRIVERS)

LOCAL, CLIENT = 'local', 'client'
"""What to give a fork server instead of changes, for commands other than servers."""

_FOR_COMMANDS = {
    LOCAL: ('zaqar_gevent.program', 'zaqar_gevent.check', 'zaqar_gevent.copying.main', *_DRIVERS),
    CLIENT: (
        *('zaqar_gevent.program', 'zaqar_gevent.terminal.main', 'zaqar_gevent.client'),
        *('difflib', 'httpcore', 'msgpack', 'rich.console', 'websockets.sync.client'),
    ),
}
_COMMAND_SECONDS = 120

# How to open the standard streams, in the order of their numbers.
_STREAMS = {'input': os.O_RDONLY, 'output': os.O_WRONLY, 'errors': os.O_WRONLY}


class ForkedProcess:
    """What the tests use of `subprocess.Popen`.

    stdout: output and errors. status: a pipe that has the exit status in the end.
    """

    def __init__(self, pid: int, stdout: IO[str], status: int) -> None:
        self.pid = pid
        self.stdout = stdout
        self.returncode: int | None = None
        self._status = status

    def poll(self) -> int | None:
        """The exit status if the process has ended: of one that was killed, minus the signal."""
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end of the process; raises `subprocess.TimeoutExpired`."""
        status = self._look(timeout)
        if status is None:
            raise subprocess.TimeoutExpired(f'process {self.pid}', timeout or 0)
        return status

    def _look(self, timeout: float | None) -> int | None:
        if self.returncode is None and readable([self._status], timeout):
            self.returncode = int(os.read(self._status, 20))
            os.close(self._status)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended.

        The fork server takes note of an end before it writes the status: in between, there is no
        such process, and the status is about to come.
        """
        try:
            if self.poll() is None:
                os.kill(self.pid, number)
        except ProcessLookupError:
            self.wait()

    def kill(self) -> None:
        """End the process at once."""
        self.send_signal(signal.SIGKILL)


class _ForkServer:
    """The process that forks, as the tests see it. It ends with its standard input."""

    def __init__(self, changes: str) -> None:
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, '-m', __name__, changes],
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def start(
        self,
        arguments: Sequence[str],
        environ: dict[str, str],
        directory: str | os.PathLike[str],
        errors: int | None = None,
        input_: int | None = None,
    ) -> ForkedProcess:
        """Fork a process.

        errors: a pipe to write its errors to, by default with the output. input_: a pipe to read
            from, by default nothing.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        output, their_output = os.pipe()
        status, their_status = os.pipe()
        request = {
            'arguments': list(arguments),
            'environ': environ,
            'directory': os.fspath(directory),
            'input': os.devnull if input_ is None else _path_of(input_),
            'output': _path_of(their_output),
            'errors': _path_of(their_output if errors is None else errors),
            'status': _path_of(their_status),
        }
        with self._lock:
            self._process.stdin.write(json.dumps(request) + '\n')
            self._process.stdin.flush()
            pid = int(self._process.stdout.readline())
        os.close(their_output)
        os.close(their_status)
        return ForkedProcess(pid, os.fdopen(output), status)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def _path_of(fd: int) -> str:
    return f'/proc/{os.getpid()}/fd/{fd}'


@functools.cache
def _of_process(pid: int, changes: str) -> _ForkServer:
    server = _ForkServer(changes)
    atexit.register(server.close)
    return server


def start_forked(
    arguments: Sequence[str], changes: str = '', env: dict[str, str] | None = None
) -> ForkedProcess:
    """Start the `zaqar-gevent` command with `arguments`.

    changes: statements that run before anything of the server is imported. env: variables, beside
        those of the environment that there is now; the server has them, the changes do not.
    """
    environ = {**os.environ, **(env or {})}
    return _of_process(os.getpid(), changes).start(arguments, environ, os.getcwd())


def run_forked(
    *arguments: str,
    given: str = '',
    cwd: str | os.PathLike[str] | None = None,
    env: dict[str, str] | None = None,
    kind: str = '',
) -> subprocess.CompletedProcess[str]:
    """Run the `zaqar-gevent` command with `arguments` to its end.

    given: its input. env: its environment, by default that which there is now. kind: `LOCAL` for
        `check` and `store copy`, `CLIENT` for the commands of the client, by default a server that
        has to end by itself.
    """
    input_, its_input = _pipe_from_here()
    errors, their_errors = os.pipe()
    process = _of_process(os.getpid(), kind).start(
        arguments,
        dict(os.environ) if env is None else env,
        os.getcwd() if cwd is None else cwd,
        errors=their_errors,
        input_=its_input,
    )
    os.close(their_errors)
    os.close(its_input)
    with os.fdopen(errors) as stderr, process.stdout as stdout, ThreadPoolExecutor() as threads:
        threads.submit(_write, input_, given)
        told, complaints = threads.map(lambda stream: stream.read(), (stdout, stderr))
        status = process.wait(_COMMAND_SECONDS)
    return subprocess.CompletedProcess(arguments, status, told, complaints)


def _pipe_from_here() -> tuple[int, int]:
    theirs, ours = os.pipe()
    return ours, theirs


def _write(fd: int, text: str) -> None:
    with contextlib.suppress(BrokenPipeError), os.fdopen(fd, 'w') as stream:
        stream.write(text)


def _import_what_servers_need(changes: str) -> None:
    from gevent import monkey

    monkey.patch_all()
    exec(changes, {})
    _import(_FOR_SERVERS)


def _import(modules: Sequence[str]) -> None:
    for module in modules:
        importlib.import_module(module)

    gc.collect()
    gc.freeze()


class _Forks:
    """The processes that have been forked, by where their exit status is to be written."""

    def __init__(self) -> None:
        self._statuses: dict[int, int] = {}

    def serve(self) -> dict[str, Any] | None:
        """Fork for each line of input; a forked process gets its request, and the first None."""
        _signal(signal.SIGCHLD, self._report)
        while line := sys.stdin.readline():
            request: dict[str, Any] = json.loads(line)
            for name, flags in _STREAMS.items():
                request[name] = os.open(request[name], flags)
            status = os.open(request['status'], os.O_WRONLY)
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
            pid = _fork()
            if not pid:
                self._forget(status)
                return request
            self._statuses[pid] = status
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
            for name in _STREAMS:
                _close(request[name])
            print(pid, flush=True)
        return None

    def _forget(self, status: int) -> None:
        """In a forked process: what belongs to the fork server."""
        for fd in (status, *self._statuses.values()):
            _close(fd)
        _signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])

    def _report(self, *args: object) -> None:
        """Write the status of each process that has ended."""
        while self._statuses:
            pid, status = _waitpid(-1, os.WNOHANG)
            if not pid:
                return
            fd = self._statuses.pop(pid)
            os.write(fd, b'%d' % os.waitstatus_to_exitcode(status))
            _close(fd)


def _settle_in(request: dict[str, Any]) -> None:
    """Take on the output, the environment and the directory that are asked for."""
    for target, name in enumerate(_STREAMS):
        os.dup2(request[name], target)
        _close(request[name])
    # Those of the fork server have been used, on other files.
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, 'w', closefd=False)
    sys.stderr = os.fdopen(2, 'w', errors='backslashreplace', buffering=1, closefd=False)
    os.environ.clear()
    os.environ.update(request['environ'])
    os.chdir(request['directory'])


def _main() -> int:
    if sys.argv[1] in _FOR_COMMANDS:
        _import(_FOR_COMMANDS[sys.argv[1]])
    else:
        _import_what_servers_need(sys.argv[1])
    request = _Forks().serve()
    if request is None:
        return 0
    import gevent

    from zaqar_gevent import cmd

    gevent.reinit()
    _settle_in(request)
    return cmd.main(request['arguments'])


if __name__ == '__main__':
    # The standard library's own: gevent's need its event loop, which does not run here.
    _fork, _waitpid, _close, _signal = os.fork, os.waitpid, os.close, signal.signal
    sys.exit(_main())
