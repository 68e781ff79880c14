"""Real proxies on loopback, with the samples that are shipped, as children of the tests.

Debian's packages are installed where that may be, as those of tests/browser are.
"""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import socket
import subprocess
import time

import pytest

from tests.browser.provisions import install
from tests.ports import free_port

ETC = pathlib.Path(__file__).parents[2] / 'etc'
START_SECONDS = 60

# All but what the sample is to be included in, and what would be written outside of the directory.
NGINX = """
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log stderr crit;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    {sample}
}}
"""


class Proxy:
    """A proxy in front of the server on `target`; it ends with the context.

    port: where it listens.
    """

    def __init__(self, name: str, target: int, directory: pathlib.Path) -> None:
        self.name = name
        self.port = free_port()
        self._command = _COMMANDS[name](_executable(name), self.port, target, directory)

    def __enter__(self) -> Proxy:
        self._process = subprocess.Popen(self._command)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                socket.create_connection(('127.0.0.1', self.port)).close()
            except OSError:
                time.sleep(0.02)
            else:
                return self
        self.__exit__()
        raise AssertionError(f'{self.name} did not start')

    def __exit__(self, *exc_info: object) -> None:
        self._process.kill()
        self._process.wait()


def _executable(name: str) -> str:
    path = f'{os.environ.get("PATH", "")}:/usr/sbin'
    if not shutil.which(name, path=path) and os.geteuid() == 0 and shutil.which('apt-get'):
        install([name])
    found = shutil.which(name, path=path)
    if not found:
        missing = f'{name} is not installed'
        if os.environ.get('CI'):
            pytest.fail(missing)
        pytest.skip(missing)
    return found


def _sample(name: str, *changes: tuple[str, str]) -> str:
    """The sample with its addresses changed: each of `changes` is a pattern and what it becomes."""
    text = (ETC / name).read_text(encoding='utf-8')
    for pattern, replacement in changes:
        text, count = re.subn(pattern, replacement, text)
        assert count == 1, (name, pattern)
    return text


def _nginx(executable: str, port: int, target: int, directory: pathlib.Path) -> list[str]:
    sample = _sample(
        'nginx.conf.sample',
        (r'listen 443 ssl;', f'listen 127.0.0.1:{port};'),
        (r'127\.0\.0\.1:8888', f'127.0.0.1:{target}'),
        (r'ssl_certificate .*', ''),
        (r'ssl_certificate_key .*', ''),
    )
    file = directory / 'nginx.conf'
    file.write_text(NGINX.format(directory=directory, sample=sample))
    return [executable, '-e', 'stderr', '-p', str(directory), '-c', str(file)]


def _haproxy(executable: str, port: int, target: int, directory: pathlib.Path) -> list[str]:
    sample = _sample(
        'haproxy.cfg.sample',
        (r'bind :443 ssl crt \S+', f'bind 127.0.0.1:{port}'),
        (r'127\.0\.0\.1:8888', f'127.0.0.1:{target}'),
    )
    file = directory / 'haproxy.cfg'
    file.write_text(sample)
    return [executable, '-db', '-q', '-f', str(file)]


_COMMANDS = {'nginx': _nginx, 'haproxy': _haproxy}
NAMES = tuple(_COMMANDS)
