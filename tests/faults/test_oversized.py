"""More than is allowed, in one piece, in many, and compressed."""

from __future__ import annotations

import itertools
import pathlib
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytest
import requests

from tests.callers import Identity
from tests.faults.client import COMPACT, DEFAULT, Client, Dialect
from tests.faults.conftest import LOGGING, Connect
from tests.faults.frames import FIN, RSV1, Opcode, StatusCode, frame, header
from tests.faults.light_load import PROMPT, LightLoad
from tests.faults.memory import MB, Peak, resident
from tests.functional.test_authentication import IdentityService, configuration
from tests.server_process import ServerProcess

LIMIT = 262_144 + 65_536
TOO_BIG = 1009
STALL = PROMPT / 2
BLOCK = bytes(1 << 20)


@contextmanager
def sending(client: Client, pieces: Iterable[bytes]) -> Iterator[None]:
    """Send all of it, beside whatever is received meanwhile, unless the server hangs up."""

    def send() -> None:
        try:
            for piece in pieces:
                client.send(piece)
        except OSError:
            return

    sender = threading.Thread(target=send)
    sender.start()
    yield
    sender.join()


def one_frame(opcode: int, mebibytes: int) -> Iterator[bytes]:
    yield header(FIN | opcode, mebibytes << 20)
    yield from itertools.repeat(BLOCK, mebibytes)


def fragments(opcode: int, size: int, count: int) -> Iterator[bytes]:
    yield frame(opcode, b'x' * size, fin=False)
    piece = frame(Opcode.CONTINUATION, b'x' * size, fin=False)
    together = max(1, 65_536 // len(piece))
    yield from itertools.repeat(piece * together, count // together)


@pytest.mark.parametrize('dialect', [DEFAULT, COMPACT], ids=str)
def test_a_frame_of_420_mib_is_refused_while_rest_is_served(
    server: ServerProcess, connect: Connect, dialect: Dialect
) -> None:
    client = connect(dialect)
    before = resident(server.pid)
    with LightLoad(server.port) as rest, sending(client, one_frame(dialect.opcode, 420)):
        assert client.status_code().code == TOO_BIG
        assert client.is_cut(within=10)
    assert rest.longest < STALL
    assert resident(server.pid) - before < 4 * MB


@pytest.mark.parametrize(
    ('size', 'count', 'reason'),
    [(65_536, 1_600, b'bytes'), (1, 1_000_000, b'fragments'), (0, 1_000_000, b'fragments')],
    ids=['1600-of-64-KiB', 'a-million-of-1-byte', 'a-million-of-nothing'],
)
def test_fragments_without_end_are_refused_by_their_size_or_their_number(
    server: ServerProcess, size: int, count: int, reason: bytes
) -> None:
    def attack(opcode: int) -> StatusCode:
        with Client(server.port) as client, sending(client, fragments(opcode, size, count)):
            return client.status_code()

    attack(Opcode.TEXT)
    before = resident(server.pid)
    with LightLoad(server.port) as rest:
        for number in rest.seconds(1):
            code = attack((Opcode.TEXT, Opcode.BINARY)[number % 2])
            assert code.code == TOO_BIG
            assert reason in code.reason
    assert rest.p99 < PROMPT
    assert resident(server.pid) - before < 4 * MB


def test_the_most_fragments_that_are_allowed_are_a_message(client: Client) -> None:
    whole = client.dialect.encode({'id': 1, 'action': 'x' * 2000})
    pieces = [whole[at : at + 1] for at in range(1023)] + [whole[1023:]]
    client.send(frame(client.dialect.opcode, pieces[0], fin=False))
    client.send(b''.join(frame(Opcode.CONTINUATION, piece, fin=False) for piece in pieces[1:-1]))
    client.send(frame(Opcode.CONTINUATION, pieces[-1]))
    assert client.status() == 400
    assert client.lives()


def test_a_request_of_10_mib_is_refused(server: ServerProcess, dialect: Dialect) -> None:
    with LightLoad(server.port) as rest:
        for _ in rest.seconds(1):
            with (
                Client(server.port, dialect) as client,
                sending(client, one_frame(dialect.opcode, 10)),
            ):
                assert client.status_code().code == TOO_BIG
    assert rest.p99 < PROMPT


def test_a_request_of_10_mib_is_too_large_for_rest(server: ServerProcess) -> None:
    headers = {**Identity().headers(), 'Content-Type': 'application/json'}
    url = f'{server.url}/v2/queues/q/messages'
    with LightLoad(server.port) as rest:
        for _ in rest.seconds(1):
            refused = requests.post(url, data=bytes(10 << 20), headers=headers, timeout=60)
            assert refused.status_code == 413
            assert refused.json()['code'] == 'body_too_large'
    assert rest.p99 < PROMPT


class Compressing(NamedTuple):
    """A server that inflates; whether it asks who its clients are."""

    process: ServerProcess
    is_guarded: bool


@pytest.fixture(scope='module')
def identity_service() -> Iterator[IdentityService]:
    with IdentityService() as service:
        yield service


@pytest.fixture(scope='module', params=[False, True], ids=['open', 'guarded'])
def compressing(
    request: pytest.FixtureRequest,
    identity_service: IdentityService,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Compressing]:
    state = tmp_path_factory.mktemp('compressing')
    policy = pathlib.Path(state, 'policy.yaml')
    policy.write_text('{}')
    config = configuration(identity_service, policy) if request.param else LOGGING
    config += '\n[drivers:transport:gevent]\ncompression = True\n'
    with ServerProcess(state, config=config) as process:
        yield Compressing(process, request.param)


def deflated(pieces: Iterable[bytes]) -> bytes:
    """The payload of a compressed message; the end of the last block is not sent (RFC 7692)."""
    deflate = zlib.compressobj(9, wbits=-12)
    compressed = [deflate.compress(piece) for piece in pieces]
    return b''.join([*compressed, deflate.flush(zlib.Z_SYNC_FLUSH)])[:-4]


# 256 MiB of zeros in 262 KB.
BOMB = deflated(itertools.repeat(BLOCK, 256))
BOMBS = 50


def in_one_frame() -> bytes:
    return frame(Opcode.BINARY, BOMB, rsv=RSV1)


def in_fragments() -> bytes:
    first, *rest = (BOMB[at : at + 1000] for at in range(0, len(BOMB), 1000))
    begin = frame(Opcode.BINARY, first, fin=False, rsv=RSV1)
    return begin + b''.join(frame(Opcode.CONTINUATION, piece, fin=False) for piece in rest)


class Inflated(Client):
    """A client that may compress what it sends."""

    def __init__(self, port: int) -> None:
        offer = 'permessage-deflate; client_max_window_bits'
        super().__init__(port, headers={'Sec-WebSocket-Extensions': offer})
        assert 'permessage-deflate' in self.response['sec-websocket-extensions']

    def send_deflated(self, document: object) -> None:
        payload = deflated([self.dialect.encode(document)])
        self.send(frame(self.dialect.opcode, payload, rsv=RSV1))

    def authenticate(self, service: IdentityService) -> None:
        token = service.issue(self.identity.project_id)
        self.send_deflated({'action': 'authenticate', 'headers': {'X-Auth-Token': token}})
        answer = self.receive()
        assert answer.rsv == RSV1
        inflated = zlib.decompressobj(-12).decompress(answer.payload + b'\0\0\xff\xff')
        assert self.dialect.status(self.dialect.decode(inflated)) == 200


@pytest.mark.parametrize('attack', [in_one_frame, in_fragments])
@pytest.mark.parametrize('is_known', [False, True], ids=['before', 'after-authentication'])
def test_what_inflates_without_end_is_refused_before_it_has(
    compressing: Compressing,
    identity_service: IdentityService,
    attack: Callable[[], bytes],
    is_known: bool,
) -> None:
    server = compressing.process
    if is_known and not compressing.is_guarded:
        pytest.skip('nobody authenticates here')
    data = attack()

    def explode() -> StatusCode:
        with Inflated(server.port) as client:
            if is_known:
                client.authenticate(identity_service)
            with sending(client, [data]):
                return client.status_code()

    assert len(BOMB) < LIMIT
    with LightLoad(server.port, '/healthcheck') as rest:
        for _ in range(BOMBS):
            explode()
        peak = Peak(server.pid)
        for _ in range(BOMBS):
            assert explode().code == TOO_BIG
        print(f'the server has grown by {peak.growth / MB:.2f} MB at most')
    assert rest.p99 < PROMPT
    assert peak.growth < BOMBS * LIMIT / 4
