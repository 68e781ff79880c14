"""More than is allowed, in one piece, in many, and compressed."""

from __future__ import annotations

import pathlib
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import requests

from tests.callers import Identity
from tests.faults.client import COMPACT, DEFAULT, Client, Dialect
from tests.faults.conftest import LOGGING, Connect
from tests.faults.frames import FIN, MASKING_KEY, RSV1, Opcode, StatusCode, frame, header, mask
from tests.faults.light_load import PROMPT, LightLoad
from tests.faults.memory import MB, resident
from tests.functional.test_authentication import IdentityService, configuration
from tests.server_process import ServerProcess

LIMIT = 262_144 + 65_536
TOO_BIG = 1009
STALL = 0.05
BLOCK = bytes(1 << 20)


@contextmanager
def sending(client: Client, pieces: Iterator[bytes]) -> Iterator[None]:
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


def repeated(data: bytes, times: int) -> Iterator[bytes]:
    return (data for _ in range(times))


@pytest.mark.parametrize('dialect', [DEFAULT, COMPACT], ids=str)
def test_a_frame_of_420_mib_is_refused_while_rest_is_served(
    server: ServerProcess, connect: Connect, dialect: Dialect
) -> None:
    client = connect(dialect)
    before = resident(server.pid)
    with LightLoad(server.port) as rest, sending(client, repeated(BLOCK, 420)):
        client.send(header(FIN | dialect.opcode, 420 << 20))
        assert client.status_code().code == TOO_BIG
        assert client.is_cut(within=10)
    assert rest.longest < STALL
    assert resident(server.pid) - before < 4 * MB


@pytest.mark.parametrize(
    ('size', 'count', 'reason'),
    [(65_536, 1_600, b'bytes'), (1, 1_000_000, b'fragments'), (0, 1_000_000, b'fragments')],
    ids=['1600-of-64-KiB', 'a-million-of-1-byte', 'a-million-of-nothing'],
)
@pytest.mark.parametrize('opcode', [Opcode.TEXT, Opcode.BINARY], ids=['text', 'binary'])
def test_fragments_without_end_are_refused_by_their_size_or_their_number(
    server: ServerProcess, connect: Connect, opcode: Opcode, size: int, count: int, reason: bytes
) -> None:
    client = connect()
    piece = frame(Opcode.CONTINUATION, b'x' * size, fin=False)
    together = max(1, 65_536 // len(piece))
    before = resident(server.pid)
    with (
        LightLoad(server.port) as rest,
        sending(client, repeated(piece * together, count // together)),
    ):
        client.send(frame(opcode, b'x' * size, fin=False))
        code = client.status_code()
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


def test_a_request_of_10_mib_is_refused(
    server: ServerProcess, connect: Connect, dialect: Dialect
) -> None:
    client = connect(dialect)
    with LightLoad(server.port) as rest, sending(client, repeated(BLOCK, 10)):
        client.send(header(FIN | dialect.opcode, 10 << 20))
        assert client.status_code().code == TOO_BIG
    assert rest.p99 < PROMPT


def test_a_request_of_10_mib_is_too_large_for_rest(server: ServerProcess) -> None:
    headers = {**Identity().headers(), 'Content-Type': 'application/json'}
    with LightLoad(server.port) as rest:
        refused = requests.post(
            f'{server.url}/v2/queues/q/messages', data=bytes(10 << 20), headers=headers, timeout=10
        )
    assert refused.status_code == 413
    assert refused.json()['code'] == 'body_too_large'
    assert rest.p99 < PROMPT


# Compression.


@pytest.fixture(scope='module')
def identity_service() -> Iterator[IdentityService]:
    with IdentityService() as service:
        yield service


@pytest.fixture(scope='module', params=['open', 'guarded'])
def compressing(
    request: pytest.FixtureRequest,
    identity_service: IdentityService,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ServerProcess]:
    """A server that inflates, without authentication and with it."""
    state = tmp_path_factory.mktemp('compressing')
    policy = pathlib.Path(state, 'policy.yaml')
    policy.write_text('{}')
    config = LOGGING if request.param == 'open' else configuration(identity_service, policy)
    config += '\n[drivers:transport:gevent]\ncompression = True\n'
    with ServerProcess(state, config=config) as process:
        process.is_guarded = request.param == 'guarded'  # type: ignore[attr-defined]
        yield process


def bomb(size: int) -> bytes:
    """`size` zeros, a thousandth of that when deflated."""
    deflate = zlib.compressobj(9, wbits=-12)
    pieces = [deflate.compress(BLOCK) for _ in range(size >> 20)]
    # The end of a flush is not sent: RFC 7692, 7.2.1.
    return b''.join([*pieces, deflate.flush(zlib.Z_SYNC_FLUSH)])[:-4]


BOMB = bomb(256 << 20)


def deflating(server: ServerProcess) -> Client:
    offer = {'Sec-WebSocket-Extensions': 'permessage-deflate; client_max_window_bits'}
    client = Client(server.port, headers=offer)
    assert 'permessage-deflate' in client.response['sec-websocket-extensions']
    return client


def in_one_frame() -> bytes:
    return frame(Opcode.BINARY, BOMB, rsv=RSV1)


def in_fragments() -> bytes:
    pieces = [BOMB[at : at + 1000] for at in range(0, len(BOMB), 1000)]
    return b''.join(
        header(
            (RSV1 | Opcode.BINARY if number == 0 else Opcode.CONTINUATION)
            | (FIN if number == len(pieces) - 1 else 0),
            len(piece),
        )
        + mask(piece, MASKING_KEY)
        for number, piece in enumerate(pieces)
    )


def authenticate(client: Client, service: IdentityService) -> None:
    token = service.issue(client.identity.project_id)
    document = {'action': 'authenticate', 'headers': {'X-Auth-Token': token}}
    client.send(client.frame(document))
    assert client.status() == 200


@pytest.mark.parametrize('attack', [in_one_frame, in_fragments])
@pytest.mark.parametrize('is_known', [False, True], ids=['unknown', 'authenticated'])
def test_what_inflates_without_end_is_refused_before_it_has(
    compressing: ServerProcess,
    identity_service: IdentityService,
    attack: object,
    is_known: bool,
) -> None:
    is_guarded = compressing.is_guarded  # type: ignore[attr-defined]
    if is_known and not is_guarded:
        pytest.skip('nobody authenticates here')
    data = attack()  # type: ignore[operator]

    def explode() -> StatusCode:
        with deflating(compressing) as client:
            if is_known:
                authenticate(client, identity_service)
            with sending(client, iter([data])):
                return client.status_code()

    assert len(BOMB) < LIMIT
    explode()
    before = resident(compressing.pid)
    with LightLoad(compressing.port, '/healthcheck') as rest:
        codes = [explode().code for _ in range(20)]
    assert codes == [TOO_BIG] * 20
    assert resident(compressing.pid) - before < 2 * LIMIT
    assert rest.p99 < PROMPT


def test_a_compressed_message_within_the_limit_is_answered(compressing: ServerProcess) -> None:
    deflate = zlib.compressobj(9, wbits=-12)
    with deflating(compressing) as client:
        text = client.dialect.encode({'action': 'nonsense', 'body': {'x': 'x' * 200_000}})
        data = (deflate.compress(text) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]
        client.send(frame(Opcode.TEXT, data, rsv=RSV1))
        answer = client.receive()
        assert answer.rsv == RSV1
        inflated = zlib.decompress(answer.payload + b'\0\0\xff\xff', wbits=-15, bufsize=300_000) if 0 else zlib.decompressobj(-15).decompress(answer.payload + b'\0\0\xff\xff')
        assert b'nonsense' in inflated
