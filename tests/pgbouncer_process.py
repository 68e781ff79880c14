"""A real PgBouncer in front of PostgreSQL, for slow tests."""

from __future__ import annotations

import os
import pathlib
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from typing import Any

from tests.ports import free_port
from tests.postgres_process import DATABASE, USER, PostgresProcess

START_SECONDS = 30
DOWNLOAD_SECONDS = 120

# The libraries that it needs and that are not on every machine.
_PACKAGES = ('pgbouncer', 'libc-ares2', 'libevent-2.1-7')

_UNPACK = 'for package in *.deb; do dpkg -x "$package" unpacked || exit 1; done'

_UNPRIVILEGED = 'nobody'

_CONFIGURATION = """
[databases]
{database} = host=127.0.0.1 port={server_port} dbname={database} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {pool_size}
max_client_conn = 200
server_lifetime = 3600
"""


class PgBouncerMissing(Exception):
    """It is not installed and cannot be had."""


class PgBouncer:
    """PgBouncer by the transaction, on a free port of loopback.

    pool_size: connections to PostgreSQL. Raises `PgBouncerMissing`.
    """

    def __init__(self, postgres: PostgresProcess, *, pool_size: int) -> None:
        self.port = free_port()
        self._root = pathlib.Path(tempfile.mkdtemp(prefix='zaqar-pgbouncer-'))
        self._root.chmod(0o755)
        try:
            self._program, self._libraries = _find(self._root)
        except PgBouncerMissing:
            self._remove()
            raise
        values = {'database': DATABASE, 'user': USER, 'port': self.port, 'pool_size': pool_size}
        (self._root / 'pgbouncer.ini').write_text(
            _CONFIGURATION.format(server_port=postgres.port, **values)
        )

    def __enter__(self) -> PgBouncer:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()
        self._remove()

    @property
    def uri(self) -> str:
        return f'postgresql://{USER}@127.0.0.1:{self.port}/{DATABASE}'

    def start(self) -> None:
        """Start it, and wait until it listens."""
        more: dict[str, Any] = {}
        if os.getuid() == 0:
            account = pwd.getpwnam(_UNPRIVILEGED)
            more.update(user=account.pw_uid, group=account.pw_gid, extra_groups=[])
        paths = [str(one) for one in self._libraries]
        self._process = subprocess.Popen(
            [str(self._program), '-q', str(self._root / 'pgbouncer.ini')],
            cwd=self._root,
            env={**os.environ, 'LD_LIBRARY_PATH': ':'.join(paths)},
            stderr=subprocess.DEVNULL,
            **more,
        )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            assert self._process.poll() is None, 'PgBouncer does not start'
            assert time.monotonic() < deadline, 'PgBouncer does not start'
            time.sleep(0.02)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def _answers(self) -> bool:
        try:
            socket.create_connection(('127.0.0.1', self.port)).close()
        except OSError:
            return False
        return True

    def _remove(self) -> None:
        shutil.rmtree(self._root, ignore_errors=True)


def _find(directory: pathlib.Path) -> tuple[pathlib.Path, list[pathlib.Path]]:
    """The program, and the directories of libraries that it needs."""
    installed = shutil.which('pgbouncer', path=f'{os.environ.get("PATH", "")}:/usr/sbin')
    if installed is not None:
        return pathlib.Path(installed), []
    if shutil.which('apt-get') is None or shutil.which('dpkg') is None:
        raise PgBouncerMissing(
            'pgbouncer is not installed, and there is no apt-get to have it from'
        )
    # Unpacked there instead of installed: it changes nothing of the machine.
    for command in (['apt-get', 'download', *_PACKAGES], ['sh', '-c', _UNPACK]):
        try:
            subprocess.run(
                command, cwd=directory, check=True, capture_output=True, timeout=DOWNLOAD_SECONDS
            )
        except (subprocess.SubprocessError, OSError) as error:
            raise PgBouncerMissing(f'apt-get cannot have pgbouncer: {error}') from None
    unpacked = directory / 'unpacked'
    libraries = {one.parent for one in (unpacked / 'usr' / 'lib').rglob('*.so.*')}
    return unpacked / 'usr' / 'sbin' / 'pgbouncer', sorted(libraries)
