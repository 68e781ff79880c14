"""The servers that are compared, each as its operator would run it, on a core of its own.

All are quiet: none logs requests. Upstream's run on Redis, since it has no store of its own.
"""

from __future__ import annotations

import functools
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import psutil

from perf.machine import CLIENT_CORE, CORES, SERVER_CORE, on_core, store_directory, tree
from tests.client.upstream_process import COMMAND
from tests.postgres_process import ON_POSTGRESQL, PostgresProcess
from tests.redis_process import ON_REDIS, RedisProcess

START_SECONDS = 60
ROOT = pathlib.Path(__file__).parents[1]
OUR_WORKER = 'zaqar_gevent.gunicorn.Worker'

_LISTENING = re.compile(r'(?:http://|Listening at: http://)127\.0\.0\.1:(\d+)')
_QUIET = """
[DEFAULT]
default_log_levels = zaqar=WARN
enable_deprecated_api_versions =
[profiler]
enabled = False
[storage]
message_pipeline =
"""


class Server:
    """A server process, pinned to the servers' core from its first moment.

    is_pinned: if False, it may use the client's core as well. port: where it listens. pids: of it
    and its children. find_store: of a store beside it, finds the processes.
    """

    def __init__(
        self,
        command: Sequence[str],
        directory: pathlib.Path,
        *,
        port: int = 0,
        home: pathlib.Path | None = None,
        find_store: Callable[[], list[int]] = list,
        is_pinned: bool = True,
    ) -> None:
        self.port = port
        self._find_store = find_store
        self._log = directory / 'server.log'
        env = {
            **os.environ,
            'PYTHONPATH': str(ROOT),
            'HOME': str(home or directory),
            'XDG_STATE_HOME': str(directory),
        }
        cores = [SERVER_CORE] if is_pinned else CORES
        with on_core(*cores), self._log.open('w') as log:
            self._process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
        try:
            self._await()
        except BaseException:
            self.stop()
            raise
        self.pids = tree(self._process.pid)

    def _await(self) -> None:
        """Wait until it answers."""
        deadline = time.monotonic() + START_SECONDS
        while not (self.port and self._answers()):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f'the server does not start:\n{self._log.read_text()}')
            time.sleep(0.05)
            if not self.port and (match := _LISTENING.search(self._log.read_text())):
                self.port = int(match[1])

    def _answers(self) -> bool:
        """Whether an HTTP request is answered, whatever the answer."""
        try:
            with socket.create_connection(('127.0.0.1', self.port), timeout=30) as probe:
                probe.sendall(b'GET /v2/ping HTTP/1.0\r\nHost: localhost\r\n\r\n')
                return bool(probe.recv(1))
        except OSError:
            return False

    @property
    def store_pids(self) -> list[int]:
        """The processes of the store beside it that are there now."""
        return self._find_store()

    def log(self) -> str:
        """What it has said."""
        return self._log.read_text()

    def stop(self) -> None:
        """End it, and wait for its end."""
        self._process.terminate()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()


class Fleet(ExitStack):
    """Servers that run together, in directories of their own, and end together.

    Only one of them is asked at a time; the others wait, which costs next to nothing.
    """

    def __init__(self, directory: pathlib.Path | None = None) -> None:
        super().__init__()
        self._parent = directory or store_directory()
        self._count = 0

    def directory(self) -> pathlib.Path:
        """A new empty directory, which goes with the fleet."""
        self._count += 1
        name = tempfile.TemporaryDirectory(
            dir=self._parent, prefix='zaqar-perf-', ignore_cleanup_errors=True
        )
        return pathlib.Path(self.enter_context(name))

    def add(self, server: Server) -> Server:
        self.callback(server.stop)
        return server

    def redis(self, *, durable: bool = False) -> RedisProcess:
        """A Redis on the client's core; durable is: an fsync before each answer."""
        with on_core(CLIENT_CORE):
            process = self.enter_context(RedisProcess(self.directory()))
        if durable:
            process.client.config_set('appendfsync', 'always')
            process.client.config_set('appendonly', 'yes')
        return process

    def postgres(self, **settings: Any) -> PostgresProcess:
        """A PostgreSQL on the client's core, which syncs before each answer."""
        with on_core(CLIENT_CORE):
            return self.enter_context(PostgresProcess(is_durable=True, **settings))

    def own(
        self,
        *,
        redis: RedisProcess | None = None,
        redis_driver: str = 'native',
        postgres: PostgresProcess | None = None,
        config: str = '',
        is_pinned: bool = True,
    ) -> Server:
        """The `zaqar-gevent` command, on the embedded store, on Redis or on PostgreSQL."""
        directory = self.directory()
        command = [sys.executable, '-m', 'zaqar_gevent.cmd', '--port', '0']
        command += ['--state-path', str(directory)]
        if redis is not None:
            stores = ON_REDIS.format(redis=redis.uri)
            stores = stores.replace('[drivers]', f'[drivers]\nredis_driver = {redis_driver}')
            config = _QUIET + stores + config
        if postgres is not None:
            # Servers of one fleet share it if they are to.
            config = _QUIET + ON_POSTGRESQL.format(uri=postgres.uri, schema='zaqar') + config
        if config:
            (directory / 'zaqar.conf').write_text(config)
            command += ['--config-file', str(directory / 'zaqar.conf')]
        find = functools.partial(_pids, redis)
        if postgres is not None:
            find = functools.partial(postgres_pids, postgres)
        return self.add(Server(command, directory, find_store=find, is_pinned=is_pinned))

    def own_under_gunicorn(self) -> Server:
        """One gunicorn worker of ours on the embedded store."""
        directory = self.directory()
        command = _gunicorn(OUR_WORKER, 'zaqar_gevent.wsgi:app')
        return self.add(Server(command, directory))

    def bare(self, kind: str) -> Server:
        """One of the servers of `perf.bare`."""
        return self.add(Server([sys.executable, '-m', 'perf.bare', kind], self.directory()))

    def echo(self, engine: str) -> Server:
        """An echo through the connections that serve in production."""
        command = [sys.executable, '-m', 'tests.autobahn.echo_server', '--port', '0']
        command += ['--no-compression', '--engine', engine]
        return self.add(Server(command, self.directory()))

    def upstream_rest(self, worker: str, redis: RedisProcess) -> Server:
        """Upstream's WSGI application under one gunicorn worker."""
        directory = self.directory()
        file = directory / '.zaqar' / 'zaqar.conf'
        file.parent.mkdir()
        file.write_text(_QUIET + ON_REDIS.format(redis=redis.uri))
        command = _gunicorn(worker, 'zaqar.transport.wsgi.app:app')
        return self.add(Server(command, directory, find_store=functools.partial(_pids, redis)))

    def upstream_websocket(self, redis: RedisProcess) -> Server:
        """Upstream's `zaqar-server` with its WebSocket transport."""
        directory = self.directory()
        with socket.create_server(('127.0.0.1', 0)) as probe:
            port = probe.getsockname()[1]
        transport = (
            f'[drivers:transport:websocket]\nbind = 127.0.0.1\nport = {port}\n'
            'notification_bind = 127.0.0.1\n'
        )
        stores = ON_REDIS.format(redis=redis.uri).replace(
            '[drivers]', '[drivers]\ntransport = websocket'
        )
        file = directory / 'zaqar.conf'
        file.write_text(_QUIET + stores + transport)
        command = [sys.executable, '-c', COMMAND, '--config-file', str(file)]
        return self.add(
            Server(command, directory, port=port, find_store=functools.partial(_pids, redis))
        )


def _gunicorn(worker: str, app: str) -> list[str]:
    command = [sys.executable, '-m', 'gunicorn', '-k', worker, '-w', '1', '-b', '127.0.0.1:0']
    return [*command, '--no-control-socket', '--graceful-timeout', '2', app]


def _pids(redis: RedisProcess | None) -> list[int]:
    return [] if redis is None else [redis.client.info('server')['process_id']]


def postgres_pids(postgres: PostgresProcess) -> list[int]:
    """The processes of a PostgreSQL, but for those that vacuum, which come and go."""
    children = psutil.Process(postgres.pid).children()
    return [postgres.pid, *(one.pid for one in children if _lasts(one))]


def _lasts(process: psutil.Process) -> bool:
    try:
        return 'autovacuum worker' not in ' '.join(process.cmdline())
    except psutil.Error:
        # It has ended since it was listed.
        return False
