"""Ports that nobody else takes, be it before a server listens there or between two that do."""

from __future__ import annotations

import os
import socket

_FIRST, _COUNT = 10_000, 22_000
"""Below what the kernel gives to those who ask for any port."""

_reserved: list[socket.socket] = []


def free_port(address: str = '127.0.0.1', *, beside: int = 0) -> int:
    """Reserve a port until this process ends.

    beside: how far above it the server takes a second one, which is then reserved as well.
    """
    count = _COUNT - beside
    for number in range(count):
        port = _FIRST + (os.getpid() * 97 + number) % count
        if _reserve(address, port) and (not beside or _reserve(address, port + beside)):
            return port
    raise AssertionError('there is no free port')


def _reserve(address: str, port: int) -> bool:
    """Take a name that stands for the port in all processes of tests, if the port is free."""
    name = socket.socket(socket.AF_UNIX)
    try:
        name.bind(f'\0zaqar-gevent-tests-{port}')
        socket.create_server((address, port)).close()
    except OSError:
        name.close()
        return False
    _reserved.append(name)
    return True
