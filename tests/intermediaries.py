"""What may stand between a client and the server: real proxies on loopback.

An `Intermediary` passes requests on to a server, one connection for each of a client's, and does to
them what its mode says:

    open     passes everything on
    strip    leaves `Upgrade` and `Connection` out of requests, as a proxy of HTTP/1.0 does
    swallow  takes in a request to upgrade, and never answers it
    cut      ends every connection some seconds after it was made
    buffer   holds what the server says back for a while; of an upgraded connection it gathers 64 KB
             before it passes anything on, the answer to the handshake included
    stall    passes the answer to the handshake on, and then gathers like `buffer`

It can be switched at run time: upgraded connections end with that, others go on in the new mode.

From another process, `python -m tests.intermediaries MODE --target PORT` prints `{"port": N}`;
each line of its standard input is a mode to switch to, and is answered with `{"mode": MODE}`. It
ends with its standard input.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import sys
import threading
from collections.abc import Coroutine

MODES = ('open', 'strip', 'swallow', 'cut', 'buffer', 'stall')
GATHERED = 64 * 1024
_LONGEST = 2**20
_HOP_BY_HOP = re.compile(rb'(?im)^(upgrade|connection):[^\n]*\n')
_UPGRADE = re.compile(rb'(?im)^upgrade:[ \t]*websocket')
_LENGTH = re.compile(rb'(?im)^content-length:[ \t]*(\d+)')
_CHUNKED = re.compile(rb'(?im)^transfer-encoding:')


class Intermediary:
    """A proxy on a free port of loopback, in a thread of its own.

    target: the port of the server. seconds: how long a connection lives that will be cut.
    hold: for how many seconds plain answers are held back.
    connections, upgrades: how many a client has made, and how many of them asked to be upgraded.
    """

    def __init__(
        self, target: int, mode: str = 'open', *, seconds: float = 5.0, hold: float = 0.2
    ) -> None:
        self.target = target
        self.mode = mode
        self.seconds = seconds
        self.hold = hold
        self.port = 0
        self.connections = 0
        self.upgrades = 0
        self._open: set[_Connection] = set()

    def __enter__(self) -> Intermediary:
        ready = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._serve(ready),))
        self._thread.start()
        assert ready.wait(60), 'the intermediary did not start'
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    @property
    def url(self) -> str:
        return f'http://127.0.0.1:{self.port}'

    def switch(self, mode: str) -> None:
        """Go on in another mode; upgraded connections are ended, before this returns."""
        assert mode in MODES, mode

        async def switched() -> None:
            self.mode = mode
            for connection in self._open.copy():
                if connection.upgrading:
                    connection.end()

        self._run(switched())

    def cut_all(self) -> None:
        """End every connection that there is, before this returns."""

        async def cut() -> None:
            for connection in self._open.copy():
                connection.end()

        self._run(cut())

    def _run(self, work: Coroutine[None, None, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _serve(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        server = await asyncio.start_server(self._accept, '127.0.0.1', 0, limit=_LONGEST)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await self._over.wait()
        server.close()
        for connection in self._open.copy():
            connection.end()
        while self._open:
            await asyncio.sleep(0.01)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            upstream = await asyncio.open_connection('127.0.0.1', self.target, limit=_LONGEST)
        except OSError:
            writer.transport.abort()
            return
        connection = _Connection(self, (reader, writer), upstream)
        self._open.add(connection)
        try:
            await connection.pass_on()
        finally:
            self._open.discard(connection)


_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Connection:
    """A client's connection and that to the server."""

    def __init__(self, owner: Intermediary, client: _Streams, server: _Streams) -> None:
        self._owner = owner
        self._client = client
        self._server = server
        self.upgrading = False

    def end(self) -> None:
        """End both at once, without a word."""
        for _, writer in (self._client, self._server):
            writer.transport.abort()

    async def pass_on(self) -> None:
        if self._owner.mode == 'cut':
            asyncio.get_running_loop().call_later(self._owner.seconds, self.end)
        answers = asyncio.create_task(self._answers())
        # Whichever side goes, the other is told by the end of its connection.
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await self._requests()
        if self._client[1].transport.is_closing():
            self.end()
        else:
            self._server[1].close()
        await answers

    async def _requests(self) -> None:
        reader, writer = self._client[0], self._server[1]
        while not self.upgrading:
            head = await reader.readuntil(b'\r\n\r\n')
            assert not _CHUNKED.search(head), 'a request of unknown length'
            if _UPGRADE.search(head):
                head = self._asked_to_upgrade(head)
            writer.write(head)
            length = _LENGTH.search(head)
            if length:
                writer.write(await reader.readexactly(int(length[1])))
            await writer.drain()
        while data := await reader.read(_LONGEST):
            writer.write(data)
            await writer.drain()

    def _asked_to_upgrade(self, head: bytes) -> bytes:
        self._owner.upgrades += 1
        if self._owner.mode == 'strip':
            return _HOP_BY_HOP.sub(b'', head)
        self.upgrading = True
        return b'' if self._owner.mode == 'swallow' else head

    async def _answers(self) -> None:
        reader, writer = self._server[0], self._client[1]
        held = b''
        with contextlib.suppress(OSError):
            while data := await reader.read(_LONGEST):
                held += data
                if not self._gathers(held):
                    await self._wait_for_more()
                    writer.write(held)
                    held = b''
                    await writer.drain()
            writer.write(held)
        writer.close()

    def _gathers(self, held: bytes) -> bool:
        if not self.upgrading or len(held) >= GATHERED:
            return False
        handshake = held.startswith(b'HTTP/1.1 101') and held.endswith(b'\r\n\r\n')
        return self._owner.mode == 'buffer' or (self._owner.mode == 'stall' and not handshake)

    async def _wait_for_more(self) -> None:
        if self._owner.mode == 'buffer' and not self.upgrading:
            await asyncio.sleep(self._owner.hold)


def main() -> None:
    """Run one, told what to be by standard input."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument('mode', choices=MODES)
    parser.add_argument('--target', type=int, required=True, metavar='PORT')
    parser.add_argument('--seconds', type=float, default=5.0, help='until a connection is cut')
    parser.add_argument('--hold', type=float, default=0.2, help='how long an answer is held back')
    options = parser.parse_args()
    proxy = Intermediary(options.target, options.mode, seconds=options.seconds, hold=options.hold)
    with proxy as intermediary:
        print(json.dumps({'port': intermediary.port}), flush=True)
        for line in sys.stdin:
            intermediary.switch(line.strip())
            print(json.dumps({'mode': intermediary.mode}), flush=True)


if __name__ == '__main__':
    main()
