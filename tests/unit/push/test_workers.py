"""News for another worker, while it cannot be told."""

import http.server
import socket
import threading
from typing import Any

import gevent
import pytest

from tests.ports import free_port
from zaqar_gevent.api import documents
from zaqar_gevent.api.push import Source
from zaqar_gevent.push import workers
from zaqar_gevent.push.workers import PUSH_PATH, RemoteWorkers, address_of, token_in


@pytest.fixture
def told():
    """The news that a worker has been told of, and its port."""
    heard = []

    class Hearing(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers['Content-Length']))
            heard.append(documents.decode_json(body)['news'])
            self.send_response(200)
            self.send_header('Content-Length', '12')
            self.end_headers()
            self.wfile.write(b'{"gone": []}')

        def log_message(self, *arguments):
            """Nobody wants to know."""

    server = http.server.HTTPServer(('127.0.0.1', 0), Hearing)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield heard, server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def test_news_waits_for_a_thread_to_look_up_the_host(told, monkeypatch):
    """gevent looks names up in threads, which cannot always be started."""
    heard, port = told
    look_up, failures = socket.getaddrinfo, []

    def fail_once(*arguments):
        if not failures:
            failures.append(arguments)
            raise RuntimeError("can't start new thread")
        return look_up(*arguments)

    monkeypatch.setattr(workers, '_RETRY_SECONDS', 0.01)
    monkeypatch.setattr('urllib3.util.connection.socket.getaddrinfo', fail_once)
    subscriber = f'http://localhost:{port}{PUSH_PATH}token'
    source = Source('demo', 'q')
    rows = [{'id': '1', 'subscriber': subscriber}]
    RemoteWorkers(None, print, print).tell(source, {('localhost', port, ''): rows})
    with gevent.Timeout(5):
        while not heard:
            gevent.sleep(0.01)
    assert failures
    assert heard == [[['token', 'q']]]


def test_what_waits_for_a_worker_that_is_gone_is_not_told_to_a_closed_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    port = free_port()
    known = Forgetful(Channel())
    rows = {}
    for number in range(5):
        url = f'http://127.0.0.1:{port}{PUSH_PATH}{str(number) * 32}-s'
        rows[number] = [{'id': str(number), 'subscriber': url}]
        known.tell(Source('demo', f'q{number}'), {('127.0.0.1', port, ''): rows[number]})
        # The first is being told when the others come.
        gevent.sleep(0)
    with gevent.Timeout(30):
        while len(known.forgotten) < len(rows):
            gevent.sleep(0.01)
    assert sorted(known.forgotten) == ['0', '1', '2', '3', '4']
    assert not [one for one in caplog.messages if 'could not be told' in one]


class Channel:
    """A store through which processes are told; `connected` says which."""

    def __init__(self) -> None:
        self.connected: set[str] = set()
        self.told: list[tuple[str, bytes]] = []

    def tell(self, process: str, news: bytes) -> bool:
        self.told.append((process, news))
        return process in self.connected

    def listen(self, process: str, hear: Any, missed: Any) -> None:
        pass


class Forgetful(RemoteWorkers):
    """Keeps what it would take out of the store."""

    def __init__(self, channel: Channel) -> None:
        super().__init__(None, print, print)  # type: ignore[arg-type]
        self.channel = channel
        self.forgotten: list[str] = []

    def forget(self, source: Source, rows: list[dict[str, Any]]) -> None:
        self.forgotten += [row['id'] for row in rows]


def test_a_process_at_an_address_of_another_host_is_told_through_the_store(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And is not taken for gone as soon as it is not connected there for a moment."""
    port = free_port()
    channel = Channel()
    known = Forgetful(channel)
    source = Source('demo', 'q')
    urls = [f'http://127.0.0.1:{port}{PUSH_PATH}{"ab" * 4}{one * 16}-s' for one in '01']
    rows = [{'id': str(at), 'subscriber': url} for at, url in enumerate(urls)]

    def tell() -> None:
        before = len(channel.told)
        known.tell(source, {address_of(urls[0]): rows})
        with gevent.Timeout(5):
            while len(channel.told) == before or any(
                worker._is_telling for worker in known._known.values()
            ):
                gevent.sleep(0.01)

    channel.connected = {'ab' * 4}
    tell()
    channel.connected = set()
    tell()
    assert known.forgotten == []
    monkeypatch.setattr(workers, '_ABSENCE_SECONDS', 0.0)
    tell()
    assert known.forgotten == ['0', '1']
    # Whoever is told that one of them is gone tells the other.
    channel.connected = {'ab' * 4}
    tell()
    known.forgotten.clear()
    known.hear_gone([token_in(urls[0])])
    with gevent.Timeout(5):
        while token_in(urls[1]).encode() not in channel.told[-1][1]:
            gevent.sleep(0.01)
    assert known.forgotten == ['0']
