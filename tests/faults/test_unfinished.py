"""Requests that begin and do not end: what they hold is bounded, and others are served."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import NamedTuple

import psutil
import pytest

from tests.callers import RestCaller, new_identity
from tests.faults.client import COMPACT, Client
from tests.faults.crowd import Crowd
from tests.faults.frames import FIN, Opcode, header
from tests.faults.gunicorn_process import GunicornProcess
from tests.faults.light_load import PROMPT, LightLoad
from tests.faults.memory import MB, Peak
from tests.server_process import ServerProcess

LIMIT = 16 * MB
# Of two addresses.
MEMBERS = 600
DECLARED = 1000 * 1000
SENT = 256 * 1024
# What each holds besides, with all that a connection takes.
EACH = 64 * 1024
BODY = 'x' * 500_000
SECONDS = 60
CONFIG = f"""
    [transport]
    max_messages_post_size = {DECLARED}
    [drivers:transport:gevent]
    max_received_bytes = {LIMIT}
"""


@pytest.fixture(scope='module')
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    kind = ServerProcess if request.param == 'own' else GunicornProcess
    with kind(tmp_path_factory.mktemp('unfinished'), config=CONFIG) as process:
        yield process
        assert process.stop() == 0
    assert 'Traceback' not in '\n'.join(process.output)


class Attack(NamedTuple):
    """What each member says, step by step; the last is not finished. end: how it is ended."""

    steps: list[bytes]
    end: bytes


def http_head(first: str, headers: dict[str, object]) -> bytes:
    lines = [f'{first} HTTP/1.1', 'Host: localhost']
    lines += [f'{name}: {value}' for name, value in headers.items()]
    return '\r\n'.join([*lines, '', '']).encode()


def post(headers: dict[str, object], body: bytes) -> Attack:
    head = http_head('POST /v2/queues/q/messages', {**new_identity().headers(), **headers})
    return Attack([head + body], b'HTTP/1.1 408')


def websocket(rest: bytes) -> Attack:
    headers: dict[str, object] = {
        'Connection': 'Upgrade',
        'Upgrade': 'websocket',
        'Sec-WebSocket-Version': 13,
        'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==',
    }
    code = (1013).to_bytes(2)
    return Attack([http_head('GET /', headers), rest], code)


ATTACKS: dict[str, Callable[[], Attack]] = {
    'sized': lambda: post({'Content-Length': DECLARED}, b'x' * SENT),
    'chunked': lambda: post({'Transfer-Encoding': 'chunked'}, b'%x\r\n' % DECLARED + b'x' * SENT),
    'frame': lambda: websocket(header(FIN | Opcode.BINARY, DECLARED) + b'x' * SENT),
    'fragments': lambda: websocket(
        b''.join(
            header(Opcode.CONTINUATION if number else Opcode.BINARY, SENT // 8) + b'7' * (SENT // 8)
            for number in range(8)
        )
    ),
}


def worker_of(server: ServerProcess) -> int:
    """The process that serves."""
    children = psutil.Process(server.pid).children()
    return children[0].pid if isinstance(server, GunicornProcess) else server.pid


@pytest.mark.parametrize(
    ('server', 'name'),
    [*(('own', name) for name in ATTACKS), ('gunicorn', 'sized')],
    indirect=['server'],
)
def test_unfinished_requests_hold_little(server: ServerProcess, name: str) -> None:
    attack = ATTACKS[name]()
    with Crowd(server.port, MEMBERS) as crowd:
        for member in crowd.received:
            # As much as the system takes.
            member.setblocking(False)
        peak = Peak(worker_of(server))
        with LightLoad(server.port) as others:
            for step in attack.steps[:-1]:
                crowd.say(step)
                crowd.listen(SECONDS, lambda: all(crowd.received.values()))
            crowd.say(attack.steps[-1])
            serve_others(server)
            crowd.listen(SECONDS, lambda: ended(crowd, attack.end) > LIMIT // DECLARED)
        growth = peak.growth
    print(f'grown by {growth / MB:.0f} MB; {ended(crowd, attack.end)} ended')
    assert growth < LIMIT + MEMBERS * EACH
    assert ended(crowd, attack.end) > LIMIT // DECLARED
    # All of it comes within a second or two, so that its longest turn of the loop is the p99.
    assert others.p99 < 2 * PROMPT


def serve_others(server: ServerProcess) -> None:
    """What others post arrives all the same: short and long, over both transports."""
    rest = RestCaller(server.url)
    with ExitStack() as stack:
        client = stack.enter_context(Client(server.port, COMPACT))
        for body in ('short', BODY):
            messages = [{'ttl': 60, 'body': body}]
            assert rest.call('message_post', queue_name='q', messages=messages).status == 201
            assert client.ask('message_post', queue_name='q', messages=messages)['status'] == 201


def ended(crowd: Crowd, end: bytes) -> int:
    return sum(end in received for received in crowd.received.values())
