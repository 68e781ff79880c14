"""News for another worker, while it cannot be told."""

import http.server
import socket
import threading

import gevent
import pytest

from zaqar_gevent.api import documents
from zaqar_gevent.api.push import Source
from zaqar_gevent.push import workers
from zaqar_gevent.push.workers import PUSH_PATH, RemoteWorkers


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
    RemoteWorkers(None).tell(source, {('localhost', port): rows})
    with gevent.Timeout(5):
        while not heard:
            gevent.sleep(0.01)
    assert failures
    assert heard == [[['token', 'q']]]
