"""The Python client's WebSocket as Autobahn's fuzzing server wants it: echoing what it is sent.

It runs every case that the server has, and lets it write its report: in threads, with `--gevent` in
greenlets, with `--asyncio` in an event loop.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import uuid
from typing import Any

SECONDS = 60.0
# Some cases are a thousand messages of 128 KiB, compressed, on a machine that may be busy.
CASE_SECONDS = 900.0
# Some cases are messages of 16 MiB.
MAX_MESSAGE_BYTES = 32 * 1024 * 1024


def main() -> None:
    """Run all cases as the agent of that name."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument('url')
    parser.add_argument('agent')
    parser.add_argument('--gevent', action='store_true')
    parser.add_argument('--asyncio', action='store_true')
    parser.add_argument('--engine', default='websockets')
    parser.add_argument('--compression', action='store_true')
    options = parser.parse_args()
    if options.gevent:
        from gevent import monkey

        monkey.patch_all()
    from zaqar_gevent.client.handshake import Refused

    frames = {'engine': options.engine, 'compression': options.compression}
    run = echo_in_loop if options.asyncio else echo
    [count] = run(f'{options.url}/getCaseCount', frames)
    for case in range(1, int(count) + 1):
        try:
            run(f'{options.url}/runCase?case={case}&agent={options.agent}', frames)
        except (OSError, Refused) as error:
            # Whether that was right is said by the report.
            print(f'case {case}: {error!r}', file=sys.stderr)
    run(f'{options.url}/updateReports?agent={options.agent}', frames)


def echo_in_loop(url: str, frames: dict[str, Any]) -> list[bytes]:
    """The same by the connection of the asyncio client."""
    from zaqar_gevent.client import settings
    from zaqar_gevent.client.aio.connection import Connection
    from zaqar_gevent.client.envelopes import CompactEnvelope

    received: list[bytes] = []

    class Echo(Connection):
        def _dispatch(self, messages: Any) -> None:
            for data, binary in messages:
                received.append(data)
                self._write(self._engine.encode(data, binary=binary))

    async def run() -> None:
        ended = asyncio.Event()
        connection = await Echo.open(
            url,
            lambda _: CompactEnvelope(),
            seconds=SECONDS,
            settings=settings.check(
                url=url,
                websocket_url=None,
                project='p',
                client_id=uuid.uuid4().hex,
                token=None,
                session=None,
                transport='websocket',
                encoding='msgpack',
                headers=None,
                tls=None,
                timeout=SECONDS,
                max_message_size=MAX_MESSAGE_BYTES,
                keepalive=SECONDS,
                retry_seconds=SECONDS,
                pool_size=1,
                default=None,
                **frames,
            ),
            subprotocols=(),
            on_end=lambda _: ended.set(),
        )
        async with asyncio.timeout(CASE_SECONDS):
            await ended.wait()
        assert not connection.is_open

    asyncio.run(run())
    return received


def echo(url: str, frames: dict[str, Any]) -> list[bytes]:
    """Send back every message until the server closes; gives what was received."""
    from zaqar_gevent.client.sync.websocket import WebSocket

    connection = WebSocket.connect(
        url, seconds=SECONDS, max_message_bytes=MAX_MESSAGE_BYTES, **frames
    )
    received = []
    try:
        while not connection.is_over:
            came, messages = connection.receive(SECONDS)
            assert came, f'nothing comes from {url}'
            for message in messages:
                received.append(message.data)
                _send_back(connection, message)
    finally:
        connection.release()
    return received


def _send_back(connection: Any, message: Any) -> None:
    try:
        connection.send(message.data, binary=message.binary, seconds=SECONDS)
    except OSError:
        # In many a case the server broke the protocol right after the message.
        if not connection.is_over:
            raise


if __name__ == '__main__':
    main()
