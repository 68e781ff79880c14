"""An echo through exactly the classes that serve in production::

    python -m tests.autobahn.echo_server --port 9001 --server own --engine websockets

Under gunicorn the application is `tests.autobahn.echo_server:build_app('websockets')`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

SERVERS = ('own', 'worker', 'stock')
ENGINES = ('websockets', 'ws4py')
WORKERS = {
    'worker': 'zaqar_gevent.gunicorn.Worker',
    'stock': 'geventwebsocket.gunicorn.workers.GeventWebSocketWorker',
}

# Autobahn sends messages of 16 MiB, and of 4 MiB in frames of 64 bytes.
MESSAGE_BYTES = 32 * 1024 * 1024
FRAGMENTS = 100_000


class Echo:
    """Says what it is told."""

    protocol = 'default'
    expires_at = None
    is_known = True

    def receive(self, payload: bytes, *, binary: bool) -> bytes:
        # An engine may give a long message as a `bytearray`, and only `bytes` are an answer.
        return bytes(payload)

    def attach(self, recipient: object) -> None:
        """An echo says nothing by itself."""

    def end(self) -> None:
        """Nothing is left of an echo."""

    def check_token(self) -> bool:
        return True

    def farewell(self, reason: str, reconnect_after_ms: int) -> None:
        return None


def build_app(engine: str, *, compression: bool = True) -> Any:
    """The application, with as few limits as an echo of anything needs."""
    from zaqar_gevent import http
    from zaqar_gevent.hosts import Hosts
    from zaqar_gevent.origins import Origins
    from zaqar_gevent.server import Application
    from zaqar_gevent.sockets.unsent import Unsent
    from zaqar_gevent.websocket import engines
    from zaqar_gevent.websocket.connections import OpenConnections
    from zaqar_gevent.websocket.engines import Compression, FrameLimits
    from zaqar_gevent.websocket.limits import Limits
    from zaqar_gevent.websocket.upgrade import Framing, Upgrade

    def refuse(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response('404 Not Found', [('Content-Length', '0')])
        return []

    upgrade = Upgrade(
        refuse,
        lambda subprotocol, identity, headers, address: Echo(),
        OpenConnections(20_000, 20_000, 20_000),
        Framing(
            engines.load(engine),
            FrameLimits(MESSAGE_BYTES, MESSAGE_BYTES, FRAGMENTS),
            Compression(level=1, window_bits=15) if compression else None,
        ),
        Limits(),
        Hosts(['*']),
        Origins({'*'}),
        subprotocols=(),
    )
    timeouts = http.Timeouts(5, 60, 75)
    return Application(
        upgrade, upgrade, timeouts, lambda connections: connections, Unsent(1 << 30, 60.0)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--port', type=int, required=True)
    parser.add_argument('--server', choices=SERVERS, default='own')
    parser.add_argument('--engine', choices=ENGINES, default='websockets')
    parser.add_argument('--no-compression', dest='compression', action='store_false')
    options = parser.parse_args()
    if options.server == 'own':
        _serve(options)
    else:
        app = f'{__spec__.name}:build_app({options.engine!r}, compression={options.compression})'
        command = [sys.executable, '-m', 'gunicorn', '-k', WORKERS[options.server]]
        command += ['-b', f'127.0.0.1:{options.port}', '--no-control-socket', app]
        os.execv(sys.executable, command)


def _serve(options: argparse.Namespace) -> None:
    """As the command does."""
    import gevent
    from gevent import monkey

    monkey.patch_all()
    gevent.config.track_greenlet_tree = False

    from zaqar_gevent import http

    app = build_app(options.engine, compression=options.compression)
    server = http.Server(('127.0.0.1', options.port), app, spawn=20_000)
    server.start()
    print(f'Listening at: http://127.0.0.1:{server.address[1]}', flush=True)
    server.serve_forever()


if __name__ == '__main__':
    main()
