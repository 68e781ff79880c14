"""One try to tell a webhook, with answers of all kinds, over real sockets."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from zaqar_gevent.api.delivery import Notification
from zaqar_gevent.api.networks import Networks
from zaqar_gevent.webhooks import connections as connecting
from zaqar_gevent.webhooks.backlog import DELIVERED, Outcome
from zaqar_gevent.webhooks.connections import ConnectionPool
from zaqar_gevent.webhooks.resolver import Place, Resolver
from zaqar_gevent.webhooks.sender import Sender, Settings

OK = b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK'


class Peer:
    """A server that answers each request of its connections with given bytes.

    unasked: what it says a little later.
    """

    def __init__(self, *answers: bytes | None) -> None:
        self._answers = iter(answers)
        self.unasked = b''
        self.has_said_more = threading.Event()
        self._listener = socket.create_server(('127.0.0.1', 0))
        self.port = self._listener.getsockname()[1]
        self.heads: list[str] = []
        self.connections = 0
        threading.Thread(target=self._accept_all, daemon=True).start()

    def _accept_all(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(ConnectionError):
            while data := sock.recv(65536):
                self.heads.append(data.partition(b'\r\n\r\n')[0].decode('latin-1'))
                answer = next(self._answers, None)
                if answer is None:
                    return
                sock.sendall(answer)
                if self.unasked:
                    time.sleep(0.05)
                    sock.sendall(self.unasked)
                    self.has_said_more.set()

    def close(self) -> None:
        self._listener.close()


class Bench:
    """A sender, a peer for it, and what the names lead to."""

    def __init__(self) -> None:
        self.places: list[str] = ['127.0.0.1']
        self.networks = Networks(loopback=True)
        self.connections = ConnectionPool(1.0)
        self.token: Callable[[str], str] = 'token of {}'.format
        self.seconds = 2.0
        self.peers: list[Peer] = []

    def peer(self, *answers: bytes | None) -> Peer:
        self.peers.append(Peer(*answers))
        return self.peers[-1]

    def _look_up(self, host: str, port: int) -> list[Place]:
        return [(socket.AF_INET, (address, port)) for address in self.places]

    def send(self, subscriber: str, **options: Any) -> Outcome:
        settings = Settings(self.seconds, 0, 'a test')
        resolver = Resolver(self._look_up)
        sender = Sender(settings, self.networks, resolver, self.connections, self.token)
        row = {'id': '1', 'subscriber': subscriber, 'options': options}
        return sender.send(row, Notification({'body': 'x'}, 'abc', None), 'p')

    def answer(self, *answers: bytes | None) -> Outcome:
        """What one try at a peer with these answers gives."""
        return self.send(f'http://named.example:{self.peer(*answers).port}/')


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    for peer in bench.peers:
        peer.close()


@pytest.mark.parametrize(
    'answer',
    [
        *(OK, b'HTTP/1.1 204 No Content\r\n\r\n', b'HTTP/1.0 201 Created\r\n\r\nuntil the end'),
        b'HTTP/1.1 202 A\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nOK\r\n0\r\n\r\n',
        b'HTTP/1.1 100 Continue\r\n\r\n' + OK,
        b'HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n' + b'x' * 100_000,
        b'HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n',
        b'HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n',
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n',
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\n' + b'x' * 9999,
    ],
)
def test_a_status_of_success_is_success_whatever_follows(bench: Bench, answer: bytes) -> None:
    assert bench.answer(answer) is DELIVERED


@pytest.mark.parametrize(
    ('answer', 'result'),
    [
        (b'HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n', 'failed'),
        (b'HTTP/1.1 503 X\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n', 'failed'),
        (b'HTTP/1.1 408 X\r\nContent-Length: 0\r\n\r\n', 'failed'),
        (b'HTTP/1.1 429 X\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n', 'failed'),
        (b'HTTP/1.1 101 X\r\n\r\n', 'failed'),
        (b'HTTP/1.1 304 X\r\n\r\n', 'refused'),
        (b'HTTP/1.1 302 X\r\nLocation: /\r\n\r\n', 'refused'),
        (b'HTTP/1.1 400 X\r\nContent-Length: 0\r\n\r\n', 'refused'),
        (b'HTTP/1.1 499 X\r\nContent-Length: 0\r\n\r\n', 'refused'),
        (b'HTTP/1.1 999 X\r\nContent-Length: 0\r\n\r\n', 'failed'),
        (b'HTTP/1.1 0 X\r\n\r\n', 'failed'),
        (b'HTTP/1.1 abc X\r\n\r\n', 'failed'),
        (b'SSH-2.0-OpenSSH\r\n', 'failed'),
        (b'\x00' * 100_000, 'failed'),
        (b'HTTP/1.1 ' + b'2' * 100_000, 'failed'),
        (b'HTTP/1.1 100 Continue\r\n\r\n' * 10_000, 'failed'),
        (None, 'failed'),
    ],
)
def test_what_is_worth_another_try(bench: Bench, answer: bytes | None, result: str) -> None:
    outcome = bench.answer(answer)
    assert outcome.result == result
    assert outcome.reason
    asked = 7.0 if answer is not None and b'Retry-After' in answer else 0.0
    assert outcome.retry_after == asked


@pytest.mark.parametrize('asked', ['-1', 'x', '\xb2', 'Thu, 26 Nov 2026 13:00:00 GMT', '9' * 5000])
def test_a_time_to_wait_that_is_none_counts_for_nothing(bench: Bench, asked: str) -> None:
    head = f'HTTP/1.1 503 X\r\nRetry-After: {asked}\r\nContent-Length: 0\r\n\r\n'
    assert bench.answer(head.encode('latin-1')).retry_after in (0.0, 999999.0)


def test_a_connection_is_used_again_if_the_whole_answer_was_read(bench: Bench) -> None:
    peer = bench.peer(OK, OK, OK)
    for _ in range(3):
        assert bench.send(f'http://a:{peer.port}/') is DELIVERED
    assert peer.connections == 1


@pytest.mark.parametrize(
    'answer',
    [
        b'HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n',
        OK + b'more than was said',
        b'HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n' + b'x' * 10_000,
        b'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n',
    ],
)
def test_and_else_closed(bench: Bench, answer: bytes) -> None:
    peer = bench.peer(answer, OK)
    for _ in range(2):
        assert bench.send(f'http://a:{peer.port}/') is DELIVERED
    assert peer.connections == 2
    assert bench.connections.idle == 1


def test_a_kept_connection_on_which_something_came_unasked_is_not_used(bench: Bench) -> None:
    peer = bench.peer(OK, OK)
    peer.unasked = b'HTTP/1.1 500 Too late\r\nContent-Length: 0\r\n\r\n'
    assert bench.send(f'http://a:{peer.port}/') is DELIVERED
    assert peer.has_said_more.wait(60)
    assert bench.send(f'http://a:{peer.port}/') is DELIVERED
    assert peer.connections == 2


def test_a_kept_connection_that_fails_is_replaced(bench: Bench) -> None:
    peer = bench.peer(OK, None, OK)
    for _ in range(2):
        assert bench.send(f'http://a:{peer.port}/') is DELIVERED
    assert peer.connections == 2
    assert len(peer.heads) == 3


def test_connections_are_kept_for_a_while_and_so_many(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting, 'MAX_IDLE', 2)
    for _ in range(3):
        bench.answer(OK)
    assert bench.connections.idle == 2
    bench.connections.close_idle()
    assert bench.connections.idle == 2
    bench.connections.close_idle(0)
    assert bench.connections.idle == 0


def test_all_that_takes_time_is_limited(bench: Bench) -> None:
    bench.seconds = 0.2
    listener = socket.create_server(('127.0.0.1', 0))
    began = time.monotonic()
    outcome = bench.send(f'http://a:{listener.getsockname()[1]}/')
    assert outcome == Outcome('failed', 'no answer within 0.2 s')
    assert 0.2 <= time.monotonic() - began < 10
    listener.close()


def test_the_address_that_was_checked_is_the_one_connected_to(bench: Bench) -> None:
    """A name that leads to one address when it is checked leads to no other one afterwards."""
    peer = bench.peer(OK, OK)
    looks = []

    def look_up(host: str, port: int) -> list[Place]:
        looks.append(host)
        return [(socket.AF_INET, ('127.0.0.1' if len(looks) == 1 else '127.0.0.9', port))]

    settings = Settings(2.0, 0, 'a test')
    networks = Networks(denied=['127.0.0.9/32'])
    sender = Sender(settings, networks, Resolver(look_up), bench.connections, bench.token)
    row = {'id': '1', 'subscriber': f'http://rebinding.example:{peer.port}/', 'options': {}}
    assert sender.send(row, Notification({}, '', None), 'p') is DELIVERED
    assert looks == ['rebinding.example']
    assert peer.heads[0].split('\r\n')[1] == f'Host: rebinding.example:{peer.port}'


def test_an_address_that_is_denied_is_not_connected_to(bench: Bench) -> None:
    peer = bench.peer(OK)
    bench.networks = Networks(denied=['127.0.0.1/32'])
    outcome = bench.send(f'http://a:{peer.port}/')
    assert outcome.result == 'refused'
    assert outcome.reason.startswith('webhooks may not go to 127.0.0.1')
    bench.places = ['127.0.0.1', '169.254.169.254']
    assert bench.send(f'http://a:{peer.port}/').result == 'refused'
    assert peer.connections == 0


def test_of_several_addresses_those_that_are_allowed_are_tried(bench: Bench) -> None:
    peer = bench.peer(OK)
    bench.networks = Networks(denied=['127.0.0.9/32'])
    bench.places = ['127.0.0.9', '127.0.0.8', '127.0.0.1']
    assert bench.send(f'http://a:{peer.port}/') is DELIVERED


def test_a_trust_is_exchanged_for_a_token(bench: Bench) -> None:
    peer = bench.peer(OK, OK)
    for scheme in ('trust+http', 'TRUST+HTTP'):
        assert bench.send(f'{scheme}://a:{peer.port}/x', trust_id='a trust') is DELIVERED
    for head in peer.heads:
        assert head.startswith('POST /x HTTP/1.1\r\n')
        assert '\r\nX-Auth-Token: token of a trust\r\n' in head
        assert '\r\nContent-Type: application/json\r\n' in head


def test_a_token_that_cannot_be_had_is_asked_for_again(bench: Bench) -> None:
    def token(trust_id: str) -> str:
        raise RuntimeError('the password of Keystone is wrong: secret')

    bench.token = token
    outcome = bench.send('trust+http://a:1/', trust_id='t')
    assert outcome == Outcome('failed', 'no token for its trust: RuntimeError')


@pytest.mark.parametrize(
    'options',
    [
        {'post_data': 1},
        {'post_headers': [1]},
        {'post_headers': {'a': 1}},
        {'post_headers': {'a b': 'c'}},
        {'post_headers': {'a': 'b\nc'}},
        {'webhook_secret': 'wrong'},
        {'post_data': '"$zaqar_message$"' * 1000},
    ],
)
def test_stored_options_that_cannot_be_used_are_a_failure(
    bench: Bench, options: dict[str, Any]
) -> None:
    outcome = bench.send('http://a:1/', **options)
    assert outcome.result == 'refused'
    assert outcome.reason.startswith('its options cannot be used')


def test_headers_that_http_needs_are_not_a_clients_to_set(bench: Bench) -> None:
    peer = bench.peer(OK)
    headers = {'Content-Length': '9', 'transfer-encoding': 'chunked', 'X-A': 'b'}
    assert bench.send(f'http://a:{peer.port}/', post_headers=headers) is DELIVERED
    [head] = peer.heads
    assert head.lower().count('content-length') == 1
    assert 'transfer-encoding' not in head
    assert '\r\nX-A: b\r\n' in head


@pytest.mark.parametrize('subscriber', ['http://', 'http://a:0/', 'gopher://a/', 'http://[::1'])
def test_a_stored_url_that_leads_nowhere_is_a_failure(bench: Bench, subscriber: str) -> None:
    assert bench.send(subscriber).result == 'refused'


def test_a_name_that_no_certificate_can_be_for_is_a_failure(bench: Bench) -> None:
    outcome = bench.send(f'https://.a:{bench.peer(OK).port}/')
    assert outcome.result == 'failed'
    assert outcome.reason.startswith('TLS failed: ')


def test_nobody_listens(bench: Bench) -> None:
    assert bench.send('http://a:1/') == Outcome('failed', 'the connection was refused')


def test_the_queues_it_has_come_through_are_named(bench: Bench) -> None:
    peer = bench.peer(OK)
    bench.send(f'http://a:{peer.port}/')
    assert '\r\nZaqar-Webhook-Path: abc\r\n' in peer.heads[0]
