"""Subscribers of all kinds in a process of their own: prompt, slow, silent, endless, wrong.

The first part of a request's path says how it is answered:

with Receivers() as receivers:
    subscriber = receivers.url('prompt/1')
    ...
    receivers.received['prompt/1']

What is received is known after the block; while it lasts, by `receivers.look()`.
"""

from __future__ import annotations

import asyncio
import json
import pathlib
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

SLOW_SECONDS = 2.0
OK = b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK'


class Received(NamedTuple):
    """One request: when it came, by the system's monotonic clock, over which connection, its
    headers and its body.
    """

    at: float
    connection: int
    headers: dict[str, str]
    body: str

    @property
    def document(self) -> Any:
        return json.loads(self.body)

    @property
    def latency(self) -> float:
        """Seconds since the message was posted, which says when that was."""
        latency: float = self.at - self.document['body']['posted_at']
        return latency


class Receivers:
    """The process. received: what came, by the path without its first slash.

    certificate: a file with one and its key; then they are reached over https.
    """

    def __init__(self, certificate: pathlib.Path | None = None) -> None:
        self.received: dict[str, list[Received]] = {}
        self._arguments = [] if certificate is None else [str(certificate)]
        self._scheme = 'http' if certificate is None else 'https'

    def __enter__(self) -> Receivers:
        command = [sys.executable, '-m', __name__, *self._arguments]
        self._process = subprocess.Popen(
            command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.look()
        self._process.communicate(timeout=60)

    @property
    def pid(self) -> int:
        return self._process.pid

    def url(self, path: str) -> str:
        return f'{self._scheme}://127.0.0.1:{self.port}/{path}'

    def look(self) -> dict[str, list[Received]]:
        """What has come so far."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write('look\n')
        self._process.stdin.flush()
        found = json.loads(self._process.stdout.readline())
        self.received = {path: [Received(*each) for each in all_] for path, all_ in found.items()}
        return self.received

    def wait_for(self, count: int, path: str, within: float = 60) -> list[Received]:
        """So many requests, or more, on a path."""
        deadline = time.monotonic() + within
        while len(found := self.look().get(path, ())) < count:
            assert time.monotonic() < deadline, f'{len(found)} of {count} came to {path}'
            time.sleep(0.05)
        return list(found)


class _Receiver(asyncio.Protocol):
    """One connection."""

    count = 0

    def __init__(self, received: dict[str, list[Any]]) -> None:
        _Receiver.count += 1
        self._number = _Receiver.count
        self._received = received
        self._data = b''
        self._can_write = asyncio.Event()
        self._can_write.set()
        self._job: asyncio.Task[None] | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._can_write.set()

    def pause_writing(self) -> None:
        self._can_write.clear()

    def resume_writing(self) -> None:
        self._can_write.set()

    def data_received(self, data: bytes) -> None:
        self._data += data
        if b'POST /deaf/' in self._data[:100]:
            self._transport.pause_reading()
        while (request := self._take()) is not None:
            self._answer(*request)

    def _take(self) -> tuple[str, dict[str, str], bytes] | None:
        head, blank, rest = self._data.partition(b'\r\n\r\n')
        if not blank:
            return None
        first, *lines = head.decode('latin-1').split('\r\n')
        headers = dict(line.split(': ', 1) for line in lines)
        size = int(headers['Content-Length'])
        if len(rest) < size:
            return None
        self._data = rest[size:]
        return first.split(' ')[1].lstrip('/'), headers, rest[:size]

    def _answer(self, path: str, headers: dict[str, str], body: bytes) -> None:
        request = (time.monotonic(), self._number, headers, body.decode())
        self._received.setdefault(path, []).append(request)
        kind, _, rest = path.partition('/')
        if kind == 'prompt':
            self._transport.write(OK)
        elif kind in _KINDS:
            self._job = asyncio.ensure_future(_KINDS[kind](self, rest))

    async def _write_always(self, chunk: bytes) -> None:
        while not self._transport.is_closing():
            self._transport.write(chunk)
            await self._can_write.wait()
            await asyncio.sleep(0)

    async def slow(self, rest: str) -> None:
        await asyncio.sleep(SLOW_SECONDS)
        self._transport.write(OK)

    async def status(self, rest: str) -> None:
        """`status/503/2/x`: the first two times 503, then 200; `status/404//x`: always."""
        status, times, *_ = rest.split('/')
        count = len(self._received[f'status/{rest}'])
        if times and count > int(times):
            status = '200'
        self._transport.write(f'HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n'.encode())

    async def redirect(self, rest: str) -> None:
        """`redirect/URL`."""
        head = f'HTTP/1.1 307 X\r\nLocation: {rest}\r\nContent-Length: 0\r\n\r\n'
        self._transport.write(head.encode())

    async def garbage(self, rest: str) -> None:
        self._transport.write(b'\x00\xff garbage \r\n\r\n' * 100)
        self._transport.close()

    async def endless(self, rest: str) -> None:
        self._transport.write(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n')
        await self._write_always(b'10000\r\n' + b'x' * 65536 + b'\r\n')

    async def heads(self, rest: str) -> None:
        self._transport.write(b'HTTP/1.1 200 OK\r\n')
        await self._write_always(b'X-Fill: ' + b'x' * 1000 + b'\r\n')

    async def line(self, rest: str) -> None:
        await self._write_always(b'HTTP/1.1' * 1000)

    async def proceed(self, rest: str) -> None:
        await self._write_always(b'HTTP/1.1 100 Continue\r\n\r\n' * 100)

    async def drip(self, rest: str) -> None:
        while not self._transport.is_closing():
            self._transport.write(b'H')
            await asyncio.sleep(0.1)

    async def hangup(self, rest: str) -> None:
        self._transport.close()


_KINDS: dict[str, Callable[[_Receiver, str], Any]] = {
    name: getattr(_Receiver, name)
    for name in (
        *('slow', 'status', 'redirect', 'garbage', 'endless', 'heads', 'line', 'proceed', 'drip'),
        'hangup',
    )
}


def _tls(certificate: str | None = None) -> ssl.SSLContext | None:
    if certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


async def _main() -> None:
    received: dict[str, list[Any]] = {}
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: _Receiver(received), '127.0.0.1', 0, backlog=1024, ssl=_tls(*sys.argv[1:])
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(received), flush=True)
        await asyncio.sleep(0)


if __name__ == '__main__':
    asyncio.run(_main())
