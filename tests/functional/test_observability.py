"""What a running server shows of itself: metrics, the access log, the health check."""

from __future__ import annotations

import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgpack
import psutil
import pytest
import requests
import websocket

from tests.callers import TRANSPORTS, CompactCaller, RestCaller, WebSocketCaller, connect
from tests.exposition import Samples, read, value_in
from tests.functional.test_authentication import POLICY, IdentityService, configuration
from tests.functional.test_push import Subscriber, post
from tests.ports import free_port
from tests.server_process import ServerProcess, start_process

ETC = pathlib.Path(__file__).parents[2] / 'etc'
SECRET = 'a-secret-that-must-not-be-logged'
LABELS = {
    'rest': 'rest',
    'ws-json': 'websocket-json',
    'ws-msgpack': 'websocket-msgpack',
    'v2-json': 'zaqar.v2-json',
    'v2-msgpack': 'zaqar.v2-msgpack',
}
WAIT_SECONDS = 60


@pytest.fixture(scope='module')
def log_file(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tmp_path_factory.mktemp('log') / 'access.log'


@pytest.fixture(scope='module')
def observed(
    log_file: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server with an access log, whose metrics nobody else changes."""
    config = f'[drivers:transport:gevent]\naccess_log = {log_file}\n'
    with ServerProcess(tmp_path_factory.mktemp('observed'), config=config) as process:
        yield process


def scrape(url: str, session: Any = requests) -> Samples:
    answer = session.get(f'{url}/metrics', timeout=60)
    assert answer.status_code == 200
    return read(answer.text)


class Difference:
    """How much the metrics of a server have grown since this was made."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._before = scrape(url)

    def of(self, name: str, **labels: object) -> float:
        now = value_in(scrape(self._url), name, **labels)
        return now - value_in(self._before, name, **labels)


def eventually(probe: Callable[[], float], expected: float) -> None:
    """Wait until `probe` gives `expected`."""
    deadline = time.monotonic() + WAIT_SECONDS
    found = probe()
    while found != expected and time.monotonic() < deadline:
        time.sleep(0.05)
        found = probe()
    assert found == expected


@pytest.mark.parametrize('transport', TRANSPORTS)
def test_requests_are_counted_by_operation_transport_and_status(
    observed: ServerProcess, transport: str
) -> None:
    difference = Difference(observed.url)
    caller = connect(transport, observed.url, observed.websocket_url)
    for number in range(3):
        caller.call('message_post', queue_name='q', messages=[{'body': number}])
    caller.call('message_post', queue_name='q', messages=[])
    caller.close()
    labels = {'operation': 'message_post', 'transport': LABELS[transport]}
    assert difference.of('requests_total', **labels, status=201) == 3
    assert difference.of('requests_total', **labels, status=400) == 1
    assert difference.of('request_duration_seconds_count', **labels) == 4
    assert 0 < difference.of('request_duration_seconds_sum', **labels) < 10


def test_what_is_no_operation_has_no_name_of_its_own(observed: ServerProcess) -> None:
    difference = Difference(observed.url)
    for number in range(5):
        requests.get(f'{observed.url}/nowhere/{number}', timeout=60)
    caller = WebSocketCaller(observed.websocket_url, binary=False)
    for number in range(5):
        caller.call(f'do_{number}')
    caller.close()
    nowhere = {'operation': 'none', 'transport': 'rest', 'status': 404}
    assert difference.of('requests_total', **nowhere) == 5
    unknown = {'operation': 'unknown', 'transport': 'websocket-json', 'status': 400}
    assert difference.of('requests_total', **unknown) == 5
    assert 'do_1' not in requests.get(f'{observed.url}/metrics', timeout=60).text


def test_reading_the_metrics_is_no_request(observed: ServerProcess) -> None:
    ours = [
        {sample: value for sample, value in scrape(observed.url).items() if 'requests' in sample[0]}
        for _ in range(2)
    ]
    assert ours[0] == ours[1]


@pytest.mark.parametrize(
    ('new_caller', 'protocol'), [(WebSocketCaller, 'default'), (CompactCaller, 'zaqar.v2')]
)
def test_a_connection_counts_while_it_is_open_by_its_latest_encoding(
    observed: ServerProcess, new_caller: type[WebSocketCaller], protocol: str
) -> None:
    def is_counted_as(encoding: str, count: int = 1) -> None:
        kind = {'engine': 'websockets', 'protocol': protocol, 'encoding': encoding}
        eventually(lambda: difference.of('websocket_connections', **kind), count)

    difference = Difference(observed.url)
    caller = new_caller(observed.websocket_url, binary=False)
    is_counted_as('none')
    caller.call('ping_node')
    is_counted_as('json')
    is_counted_as('none', 0)
    caller._binary = True
    caller.call('ping_node')
    is_counted_as('msgpack')
    is_counted_as('json', 0)
    caller.close()
    is_counted_as('msgpack', 0)


@pytest.mark.parametrize('binary', [False, True])
def test_messages_and_bytes_are_counted_both_ways(observed: ServerProcess, binary: bool) -> None:
    difference = Difference(observed.url)
    caller = WebSocketCaller(observed.websocket_url, binary=binary)
    request = {'action': 'ping_node', 'headers': caller.identity.headers()}
    payload = msgpack.packb(request) if binary else json.dumps(request).encode()
    for _ in range(4):
        answer = caller.exchange(payload)
    answer_size = len(msgpack.packb(answer) if binary else json.dumps(answer).encode())
    caller.close()
    encoding = 'msgpack' if binary else 'json'
    assert difference.of('websocket_frames_total', direction='in', encoding=encoding) == 4
    assert difference.of('websocket_frames_total', direction='out', encoding=encoding) == 4
    received = difference.of('websocket_bytes_total', direction='in', encoding=encoding)
    assert received == 4 * len(payload)
    sent = difference.of('websocket_bytes_total', direction='out', encoding=encoding)
    assert 0 < sent <= 4 * answer_size


def close_with(code: int) -> Callable[[websocket.WebSocket], None]:
    def close(client: websocket.WebSocket) -> None:
        client.send_close(code, b'')
        client.recv_data()

    return close


def say_too_much(client: websocket.WebSocket) -> None:
    client.send_frame(websocket.ABNF.create_frame(b'x' * 500_000, websocket.ABNF.OPCODE_TEXT))


def say_no_utf8(client: websocket.WebSocket) -> None:
    client.send(b'\xff', websocket.ABNF.OPCODE_TEXT)


def hang_up(client: websocket.WebSocket) -> None:
    """Go without a word."""


@pytest.mark.parametrize(
    ('end', 'code'),
    [
        (close_with(1000), '1000'),
        (close_with(1001), '1001'),
        (close_with(3000), 'other'),
        (close_with(4999), 'other'),
        (say_too_much, '1009'),
        (say_no_utf8, '1007'),
        (hang_up, '1006'),
    ],
    ids=['1000', '1001', '3000', '4999', 'too-much', 'no-utf8', 'hang-up'],
)
def test_ends_are_counted_by_close_code(
    observed: ServerProcess, end: Callable[[websocket.WebSocket], None], code: str
) -> None:
    difference = Difference(observed.url)
    client = websocket.create_connection(observed.websocket_url, timeout=60)
    end(client)
    client.shutdown()
    eventually(lambda: difference.of('websocket_closes_total', code=code), 1)


@pytest.mark.parametrize(
    ('headers', 'reason'),
    [
        ({'Sec-WebSocket-Version': '7'}, 'handshake'),
        ({'Origin': 'https://evil.example'}, 'origin'),
    ],
)
def test_refused_upgrades_are_counted_by_reason(
    observed: ServerProcess, headers: dict[str, str], reason: str
) -> None:
    difference = Difference(observed.url)
    upgrade = {
        'Connection': 'Upgrade',
        'Upgrade': 'websocket',
        'Sec-WebSocket-Version': '13',
        'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==',
    }
    refused = requests.get(f'{observed.url}/v2/ws', headers={**upgrade, **headers}, timeout=60)
    assert refused.status_code >= 400
    assert difference.of('websocket_refusals_total', reason=reason) == 1


@pytest.mark.parametrize(
    ('option', 'reason'),
    [('max_websockets', 'capacity'), ('max_websockets_per_address', 'address')],
)
def test_upgrades_refused_for_want_of_room_are_counted(
    tmp_path: pathlib.Path, option: str, reason: str
) -> None:
    config = f'[drivers:transport:gevent]\n{option} = 1\n'
    with ServerProcess(tmp_path, config=config) as server:
        only = WebSocketCaller(server.websocket_url, binary=False)
        with pytest.raises(websocket.WebSocketBadStatusException):
            WebSocketCaller(server.websocket_url, binary=False)
        only.close()
        assert value_in(scrape(server.url), 'websocket_refusals_total', reason=reason) == 1


@pytest.mark.parametrize('transport', TRANSPORTS)
def test_commits_are_counted_with_their_size(observed: ServerProcess, transport: str) -> None:
    caller = connect(transport, observed.url, observed.websocket_url)
    caller.call('queue_create', queue_name='q')
    difference = Difference(observed.url)
    for number in range(5):
        caller.call('message_post', queue_name='q', messages=[{'body': number}])
    caller.close()
    assert difference.of('store_commit_size_count') == 5
    assert difference.of('store_commit_size_sum') == 5
    assert difference.of('store_commit_size_bucket', le='1.0') == 5


def test_nothing_waits_to_be_sent_to_clients_that_listen(observed: ServerProcess) -> None:
    caller = WebSocketCaller(observed.websocket_url, binary=False)
    caller.call('ping_node')
    for name in ('websocket_outbox_bytes', 'websocket_outbox_messages'):
        eventually(lambda name=name: value_in(scrape(observed.url), name), 0)  # type: ignore[misc]
        assert (f'zaqar_{name}', frozenset()) in scrape(observed.url)
    caller.close()


def test_pushes_are_counted_by_kind(observed: ServerProcess) -> None:
    difference = Difference(observed.url)
    with Subscriber(observed.port) as subscriber:
        subscriber.subscribe()
        rest = RestCaller(observed.url, identity=subscriber.identity)
        post(rest, 1, 2, 3)
        assert subscriber.bodies(3) == [1, 2, 3]
        rest.close()
    eventually(lambda: difference.of('pushes_total', kind='message'), 3)


def test_the_metrics_are_those_of_the_process_too(observed: ServerProcess) -> None:
    samples = scrape(observed.url)
    memory = samples['process_resident_memory_bytes', frozenset()]
    assert memory == pytest.approx(psutil.Process(observed.pid).memory_info().rss, rel=0.2)


def test_metrics_that_are_off_are_not_found(tmp_path: pathlib.Path) -> None:
    with ServerProcess(tmp_path, config='[drivers:transport:gevent]\nmetrics = False\n') as server:
        assert requests.get(f'{server.url}/metrics', timeout=60).status_code == 404
        assert requests.get(f'{server.url}/healthcheck', timeout=60).status_code == 200


def test_metrics_with_a_listener_of_their_own_are_only_there(tmp_path: pathlib.Path) -> None:
    port = free_port()
    config = f'[drivers:transport:gevent]\nmetrics_port = {port}\n'
    with ServerProcess(tmp_path, config=config) as server:
        caller = RestCaller(server.url)
        caller.call('queue_list')
        caller.close()
        apart = f'http://127.0.0.1:{port}'
        labels = {'operation': 'queue_list', 'transport': 'rest', 'status': 200}
        assert value_in(scrape(apart), 'requests_total', **labels) == 1
        for url in (f'{server.url}/metrics', f'{apart}/', f'{apart}/v2/queues'):
            refused = requests.get(url, timeout=60)
            assert refused.status_code == 404
            assert set(refused.json()) == {'code', 'title', 'description'}
        assert requests.post(f'{apart}/metrics', timeout=60).status_code == 405


def test_a_listener_that_cannot_listen_is_told_at_start(tmp_path: pathlib.Path) -> None:
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen()
        port = taken.getsockname()[1]
        failed = run_command(tmp_path, f'metrics_port = {port}')
    assert failed.returncode == 1
    assert failed.stderr.count('\n') == 1
    assert str(port) in failed.stderr


def run_command(state: pathlib.Path, option: str) -> subprocess.CompletedProcess[str]:
    """The command with an option of the transport that keeps it from starting."""
    config = state / 'zaqar.conf'
    config.write_text(f'[drivers:transport:gevent]\n{option}\n')
    command = [sys.executable, '-m', 'zaqar_gevent.cmd', '--port', '0']
    options = ['--state-path', str(state), '--config-file', str(config)]
    return subprocess.run([*command, *options], capture_output=True, text=True, timeout=60)


def test_the_health_check_needs_no_headers(observed: ServerProcess) -> None:
    answer = requests.get(f'{observed.url}/healthcheck', timeout=60)
    assert answer.status_code == 200
    assert requests.head(f'{observed.url}/healthcheck', timeout=60).status_code == 204
    detailed = requests.get(
        f'{observed.url}/healthcheck', headers={'Accept': 'application/json'}, timeout=60
    )
    assert detailed.json()['reasons'] == []


def test_with_keystone_neither_health_nor_metrics_need_a_token(tmp_path: pathlib.Path) -> None:
    policy = tmp_path / 'policy.yaml'
    policy.write_text(POLICY)
    with (
        IdentityService() as service,
        ServerProcess(tmp_path, config=configuration(service, policy)) as server,
    ):
        assert requests.get(f'{server.url}/v2/queues', timeout=60).status_code == 401
        assert requests.get(f'{server.url}/healthcheck', timeout=60).status_code == 200
        refused = {'operation': 'none', 'transport': 'rest', 'status': 401}
        assert value_in(scrape(server.url), 'requests_total', **refused) == 1
        with pytest.raises(websocket.WebSocketBadStatusException):
            websocket.create_connection(server.websocket_url, header={'X-Auth-Token': 'x'})
        reason = {'reason': 'authentication'}
        assert value_in(scrape(server.url), 'websocket_refusals_total', **reason) == 1


def test_the_health_check_is_what_its_section_says(tmp_path: pathlib.Path) -> None:
    file = tmp_path / 'disabled'
    section = f'[healthcheck]\nbackends = disable_by_file\ndisable_by_file_path = {file}\n'
    with ServerProcess(tmp_path, config=section) as server:
        assert requests.get(f'{server.url}/healthcheck', timeout=60).status_code == 200
        file.touch()
        assert requests.get(f'{server.url}/healthcheck', timeout=60).status_code == 503


def lines_of(file: pathlib.Path, project_id: str) -> list[dict[str, Any]]:
    """What the log has of a project."""
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return [line for line in lines if line['project_id'] == project_id]


@pytest.mark.parametrize('transport', TRANSPORTS)
def test_the_access_log_has_one_line_a_request(
    observed: ServerProcess, log_file: pathlib.Path, transport: str
) -> None:
    caller = connect(transport, observed.url, observed.websocket_url)
    headers = {**caller.identity.headers(), 'X-User-Id': 'somebody', 'X-Auth-Token': SECRET}
    messages = [{'body': SECRET, 'ttl': 300}]
    caller.call('message_post', headers=headers, queue_name='q', messages=messages)
    caller.call('message_list', headers=headers, queue_name='q', echo=True)
    caller.call('message_list', headers=headers, queue_name='q', limit=0)
    caller.close()
    lines = lines_of(log_file, caller.identity.project_id)
    assert [(line['operation'], line['status']) for line in lines] == [
        ('message_post', 201),
        ('message_list', 200),
        ('message_list', 400),
    ]
    for line in lines:
        assert line['transport'] == LABELS[transport]
        assert line['client_id'] == caller.identity.client_id
        assert line['user_id'] == 'somebody'
        assert line['remote'] == '127.0.0.1'
        assert re.fullmatch(r'req-[0-9a-f-]{36}', line['request_id'])
        assert re.fullmatch(r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z', line['time'])
        assert 0 < line['duration_ms'] < 10_000
        assert line['bytes_out'] > 0
        assert ('method' in line) == ('path' in line) == (transport == 'rest')
    assert lines[0]['bytes_in'] > len(SECRET)
    if transport == 'rest':
        assert [line['method'] for line in lines] == ['POST', 'GET', 'GET']
        assert {line['path'] for line in lines} == {'/v2/queues/q/messages'}
    assert SECRET not in log_file.read_text()


@pytest.mark.parametrize('binary', [False, True])
def test_the_sizes_of_a_websockets_line_are_those_of_the_messages(
    observed: ServerProcess, log_file: pathlib.Path, binary: bool
) -> None:
    caller = WebSocketCaller(observed.websocket_url, binary=binary)
    request = {'action': 'ping_node', 'headers': caller.identity.headers()}
    payload = msgpack.packb(request) if binary else json.dumps(request).encode()
    opcode = websocket.ABNF.OPCODE_BINARY if binary else websocket.ABNF.OPCODE_TEXT
    caller.socket.send(payload, opcode)
    _, answer = caller.socket.recv_data()
    caller.close()
    [line] = lines_of(log_file, caller.identity.project_id)
    assert (line['bytes_in'], line['bytes_out']) == (len(payload), len(answer))


def test_a_client_cannot_forge_a_line(observed: ServerProcess, log_file: pathlib.Path) -> None:
    before = len(log_file.read_text().splitlines())
    forged = 'x"}\n{"operation":"forged","project_id":"forged\u2028\u0085'
    caller = WebSocketCaller(observed.websocket_url, binary=False)
    client_id = caller.identity.client_id
    caller.call('queue_list', headers={'Client-ID': client_id, 'X-Project-ID': forged})
    caller.close()
    path = '/v2/queues/%0A%7B%22operation%22:%22forged%22%7D'
    headers = {'Client-ID': client_id, 'X-Project-ID': 'forging'}
    requests.get(observed.url + path, headers=headers, timeout=60)
    lines = [json.loads(line) for line in log_file.read_text().splitlines()[before:]]
    assert len(lines) == 2
    assert lines[0]['project_id'] == forged
    assert lines[1]['path'] == '/v2/queues/\n{"operation":"forged"}'


def test_a_log_that_was_moved_away_is_begun_anew(
    observed: ServerProcess, log_file: pathlib.Path
) -> None:
    caller = RestCaller(observed.url)
    moved = log_file.rename(log_file.with_suffix('.1'))
    caller.call('queue_list')
    caller.close()
    assert len(lines_of(log_file, caller.identity.project_id)) == 1
    assert len(lines_of(moved, caller.identity.project_id)) == 0


def test_the_access_log_may_be_standard_error(tmp_path: pathlib.Path) -> None:
    config = '[drivers:transport:gevent]\naccess_log = -\n'
    with ServerProcess(tmp_path, config=config) as server:
        caller = RestCaller(server.url)
        caller.call('queue_list')
        caller.close()
        server.stop()
        lines = [json.loads(line) for line in server.output if line.startswith('{')]
    assert [line['operation'] for line in lines] == ['queue_list']


def test_a_log_that_cannot_be_written_is_told_at_start(tmp_path: pathlib.Path) -> None:
    failed = run_command(tmp_path, f'access_log = {tmp_path}/missing/access.log')
    assert failed.returncode == 1
    assert failed.stderr.count('\n') == 1
    assert 'access_log' in failed.stderr


@contextmanager
def several_workers(state: pathlib.Path, metrics: pathlib.Path) -> Iterator[tuple[str, int]]:
    """gunicorn with two workers and the sample; its address and process id."""
    options = ('-c', str(ETC / 'gunicorn.conf.py'), '-b', '127.0.0.1:0', '-w', '2')
    env = {**os.environ, 'XDG_STATE_HOME': str(state), 'HOME': str(state)}
    env['PROMETHEUS_MULTIPROC_DIR'] = str(metrics)
    process = start_process([sys.executable, '-m', 'gunicorn', *options], env)
    try:
        assert process.stdout is not None
        address = next(
            match[1]
            for line in process.stdout
            if (match := re.search(r'Listening at: http://(\S+)', line))
        )
        threading.Thread(target=process.stdout.read, daemon=True).start()
        yield address, process.pid
    finally:
        process.terminate()
        process.wait(timeout=60)


def workers_of(pid: int) -> list[psutil.Process]:
    """Both workers, once they are there."""
    eventually(lambda: len(psutil.Process(pid).children()), 2)
    workers: list[psutil.Process] = psutil.Process(pid).children()
    return workers


@contextmanager
def stopped(worker: psutil.Process) -> Iterator[None]:
    """While this worker does nothing, the other one gets all connections."""
    worker.suspend()
    try:
        yield
    finally:
        worker.resume()


def test_several_workers_show_their_sums_and_forget_the_connections_of_a_dead_one(
    tmp_path: pathlib.Path,
) -> None:
    metrics = tmp_path / 'metrics'
    metrics.mkdir()
    labels = {'operation': 'ping_node', 'transport': 'rest', 'status': 204}
    kind = {'engine': 'websockets', 'protocol': 'default', 'encoding': 'json'}
    with (
        several_workers(tmp_path, metrics) as (address, pid),
        requests.Session() as one_of_them,
    ):
        url = f'http://{address}'

        def pings() -> float:
            return value_in(scrape(url, one_of_them), 'requests_total', **labels)

        def connections() -> float:
            return value_in(scrape(url, one_of_them), 'websocket_connections', **kind)

        first, second = workers_of(pid)
        with stopped(second):
            assert pings() == 0  # From here on it is the first that answers in this session.
        clients = []
        for worker in (first, second):
            with stopped(worker):
                caller = RestCaller(url)
                for _ in range(10):
                    assert caller.call('ping_node').status == 204
                caller.close()
        eventually(pings, 20)
        for worker in (first, second):
            with stopped(worker):
                clients.append(WebSocketCaller(f'ws://{address}/', binary=False))
                clients[-1].call('ping_node')
        eventually(connections, 2)
        second.kill()
        eventually(connections, 1)
        assert pings() == 20
        for client in clients:
            client.socket.shutdown()
