"""The `zaqar-gevent` command as a user meets it."""

from __future__ import annotations

import os
import pathlib
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys

import pytest
import requests

from tests.callers import RestCaller, WebSocketCaller
from tests.fork_server import LOCAL, run_forked
from tests.ports import free_port
from tests.server_process import ServerProcess
from tests.stopwatch import Stopwatch

ROOT = pathlib.Path(__file__).parents[2]


def run(*options: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end; as a user does where PYTHONPATH says what it can import."""
    if 'PYTHONPATH' not in env:
        is_server = not options or options[0].startswith('-')
        return run_forked(*options, env={**os.environ, **env}, kind='' if is_server else LOCAL)
    return subprocess.run(
        [sys.executable, '-m', 'zaqar_gevent.cmd', *options],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=120,
    )


def failure(*options: str, **env: str) -> str:
    """The one line with which the command refuses to start.

    On a slow machine a line may come before it that says what is being waited for.
    """
    finished = run(*options, **env)
    assert finished.returncode not in (0, None)
    assert finished.stdout == ''
    [line] = [line for line in finished.stderr.splitlines() if 'still being opened' not in line]
    return line


def test_it_says_where_it_listens_and_nothing_else(tmp_path: pathlib.Path) -> None:
    with ServerProcess(tmp_path) as server:
        assert server.stop() == 0
    [line] = server.output
    assert f'http://127.0.0.1:{server.port}' in line
    assert f'sqlite:///{tmp_path}/zaqar.sqlite' in line


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_it_stops_soon_with_status_zero(tmp_path: pathlib.Path, number: int) -> None:
    """Also where a client does not say goodbye."""
    config = '[drivers:transport:gevent]\nclose_timeout = 0.5\n'
    with ServerProcess(tmp_path, config=config) as server:
        websocket = WebSocketCaller(server.websocket_url, binary=False)
        rest = RestCaller(server.url)
        assert websocket.call('ping_node').status == rest.call('ping_node').status == 204
        assert server.stop(number) == 0
    assert len(server.output) == 1


@pytest.mark.parametrize('place', ['zaqar.conf', 'zaqar.conf.d/quotas.conf', 'own/quotas.conf'])
def test_it_reads_the_files_that_upstream_reads(tmp_path: pathlib.Path, place: str) -> None:
    file = tmp_path / '.zaqar' / place
    file.parent.mkdir(parents=True)
    file.write_text('[quota]\nzaqar_queues = many\n')
    options = ('--config-dir', str(file.parent)) if 'own' in place else ()
    assert str(file) in failure(*options, HOME=str(tmp_path))


def test_a_directory_that_is_not_there_is_named() -> None:
    assert '/nowhere' in failure('--config-dir', '/nowhere')


def test_its_store_is_under_the_xdg_state_directory(tmp_path: pathlib.Path) -> None:
    command = [sys.executable, '-m', 'zaqar_gevent.cmd', '--port', '0']
    env = {**os.environ, 'XDG_STATE_HOME': str(tmp_path)}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert f'{tmp_path}/zaqar-gevent/zaqar.sqlite' in process.stdout.readline()
        process.terminate()
    directory = tmp_path / 'zaqar-gevent'
    assert directory.stat().st_mode & 0o777 == 0o700
    assert (directory / 'zaqar.sqlite').stat().st_mode & 0o777 == 0o600


def test_messages_outlive_the_server(tmp_path: pathlib.Path) -> None:
    with ServerProcess(tmp_path) as server:
        caller = RestCaller(server.url)
        caller.call('message_post', queue_name='orders', messages=[{'body': 'kept'}])
    with ServerProcess(tmp_path) as server:
        again = RestCaller(server.url, identity=caller.identity)
        [message] = again.call('message_list', queue_name='orders', echo=True).body['messages']
        assert message['body'] == 'kept'


def test_a_configuration_file_is_honoured(tmp_path: pathlib.Path) -> None:
    file = tmp_path / 'store.sqlite'
    config = f"""
        [drivers]
        transport = wsgi
        message_store = sqlite
        management_store = sqlite
        [drivers:message_store:sqlite]
        uri = sqlite:///{file}
        [drivers:management_store:sqlite]
        uri = sqlite:///{file}
        [transport]
        max_messages_per_page = 3
    """
    with ServerProcess(tmp_path / 'state', config=config) as server:
        caller = RestCaller(server.url)
        assert caller.call('message_list', queue_name='orders', limit=4).status == 400
        assert str(file) in server.output[0]
    with sqlite3.connect(file) as connection:
        assert connection.execute('PRAGMA journal_mode').fetchone() == ('wal',)


def test_the_address_may_come_from_the_configuration_file(tmp_path: pathlib.Path) -> None:
    port = free_port('127.0.0.2')
    file = tmp_path / 'zaqar.conf'
    file.write_text(f'[drivers:transport:wsgi]\nbind = 127.0.0.2\nport = {port}\n')
    command = [sys.executable, '-m', 'zaqar_gevent.cmd', '--config-file', str(file)]
    env = {**os.environ, 'XDG_STATE_HOME': str(tmp_path)}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert f'http://127.0.0.2:{port}' in process.stdout.readline()
        assert requests.get(f'http://127.0.0.2:{port}/', timeout=60).status_code == 300
        process.terminate()


@pytest.mark.parametrize('port', ['80a', '65536', '-1'])
def test_a_port_that_is_none_is_told_what_is_allowed(port: str) -> None:
    finished = run(f'--port={port}')
    assert finished.returncode == 2
    assert finished.stderr.endswith(f"argument --port: '{port}' is not a port, 0 to 65535\n")


def test_a_busy_port_gets_one_line(tmp_path: pathlib.Path) -> None:
    with socket.create_server(('127.0.0.1', 0)) as taken:
        port = str(taken.getsockname()[1])
        line = failure('--port', port, '--state-path', str(tmp_path))
    assert port in line
    assert 'Address already in use' in line


def test_a_state_path_that_cannot_be_written_gets_one_line(tmp_path: pathlib.Path) -> None:
    (tmp_path / 'file').write_text('')
    assert str(tmp_path / 'file') in failure('--port', '0', '--state-path', f'{tmp_path}/file/x')


def test_a_store_that_is_no_store_gets_one_line(tmp_path: pathlib.Path) -> None:
    (tmp_path / 'zaqar.sqlite').write_text('not a database, just a text that is long enough')
    line = failure('--port', '0', '--state-path', str(tmp_path))
    assert str(tmp_path / 'zaqar.sqlite') in line


@pytest.mark.parametrize(
    ('config', 'told'),
    [
        ('no section', 'zaqar.conf'),
        ('[transport]\nmax_message_ttl = long\n', 'max_message_ttl'),
        ('[drivers]\nmessage_store = paper\n', 'paper'),
        ('[drivers]\ntransport = pigeon\n', 'transport'),
        ('[drivers]\nmessage_store = sqlite\nmanagement_store = sqlite\n', 'uri'),
        ('[encryption]\nwrite_format = rot13\n', 'write_format'),
        ('[encryption]\nread_formats = rot13\n', 'read_formats'),
        ('[encryption]\nread_formats = upstream\n', 'must include write_format (aes-gcm)'),
        ('[encryption]\nkeys = short\n', 'at least 16 characters'),
        ('[transport]\nmessage_encryption_algorithms = RSA\n', 'must be AES256'),
    ],
)
def test_a_bad_configuration_file_gets_one_line(
    tmp_path: pathlib.Path, config: str, told: str
) -> None:
    file = tmp_path / 'zaqar.conf'
    file.write_text(config)
    line = failure('--port', '0', '--state-path', str(tmp_path), '--config-file', str(file))
    assert told in line


@pytest.mark.parametrize(
    ('store', 'driver', 'module', 'extra'),
    [
        ('redis', 'native', 'hiredis', 'redis'),
        ('redis', 'upstream', 'redis', 'redis'),
        ('mongodb', 'native', 'pymongo', 'mongodb'),
        ('postgresql', 'native', 'psycopg', 'postgresql'),
    ],
)
def test_a_store_whose_module_is_missing_names_the_extra(
    tmp_path: pathlib.Path, store: str, driver: str, module: str, extra: str
) -> None:
    (tmp_path / f'{module}.py').write_text(
        f'raise ModuleNotFoundError("No module named {module!r}", name={module!r})\n'
    )
    file = tmp_path / 'zaqar.conf'
    stores = f'message_store = {store}\nmanagement_store = {store}\n'
    file.write_text(f'[drivers]\nredis_driver = {driver}\n{stores}')
    path = f'{tmp_path}:{ROOT}'
    line = failure('--port', '0', '--config-file', str(file), PYTHONPATH=path)
    assert f"No module named '{module}'" in line
    assert f'pip install "zaqar_gevent[{extra}]"' in line
    if store == 'postgresql':
        told = run('check', '--config-file', str(file), PYTHONPATH=path).stdout
        assert f'pip install "zaqar_gevent[{extra}]"' in told
        assert run('db', '--help', PYTHONPATH=path).stdout.startswith('usage: zaqar-gevent db')


@pytest.mark.parametrize(
    ('command', 'module'),
    [('serve', 'falcon'), ('check', 'keystoneauth1'), ('ping', 'msgpack'), ('help', 'difflib')],
)
def test_an_interruption_while_modules_are_loaded_is_quiet(
    tmp_path: pathlib.Path, command: str, module: str
) -> None:
    """Also where what loads them would print the exception, or go on."""
    (tmp_path / f'{module}.py').write_text(
        'import os, signal\n'
        'try:\n'
        '    os.kill(os.getpid(), signal.SIGINT)\n'
        '    signal.pause()\n'
        'except KeyboardInterrupt:\n'
        "    print('interrupted')\n"
    )
    finished = run(command, PYTHONPATH=f'{tmp_path}:{ROOT}', XDG_STATE_HOME=str(tmp_path))
    assert (finished.returncode, finished.stdout, finished.stderr) == (130, '', '')


def test_the_file_of_a_bad_value_is_named(tmp_path: pathlib.Path) -> None:
    file = tmp_path / 'zaqar.conf'
    file.write_text('[drivers:transport:gevent]\nmax_depth = deep\n')
    line = failure('--port', '0', '--config-file', str(file))
    assert f'option max_depth from {file} is not valid' in line
    assert 'Location' not in line


def test_a_missing_configuration_file_gets_one_line(tmp_path: pathlib.Path) -> None:
    assert '/nowhere.conf' in failure('--config-file', f'{tmp_path}/nowhere.conf')


def test_accepted_sockets_do_not_wait_for_acknowledgements(tmp_path: pathlib.Path) -> None:
    """With Nagle's delay, whatever is written in two pieces takes 40 ms."""
    with ServerProcess(tmp_path) as server:
        caller = RestCaller(server.url)
        durations = []
        for _ in range(21):
            watch = Stopwatch(server.pid)
            caller.session.get(f'{server.url}/')
            durations.append(watch.seconds())
    assert statistics.median(durations) < 0.03


def test_an_answer_is_written_in_one_piece(tmp_path: pathlib.Path) -> None:
    with (
        ServerProcess(tmp_path) as server,
        socket.create_connection(('127.0.0.1', server.port), timeout=60) as client,
    ):
        for _ in range(20):
            client.sendall(b'GET / HTTP/1.1\r\nHost: localhost\r\n\r\n')
            head, separator, body = client.recv(65_536).partition(b'\r\n\r\n')
            assert separator
            assert f'content-length: {len(body)}'.encode() in head
            assert body


def test_a_connection_that_says_nothing_does_not_keep_the_server_from_stopping(
    tmp_path: pathlib.Path,
) -> None:
    with ServerProcess(tmp_path) as server:
        kept = requests.Session()
        kept.get(f'{server.url}/', timeout=60)
        with socket.create_connection(('127.0.0.1', server.port), timeout=60):
            # Another client is served after the silent one was accepted.
            requests.get(f'{server.url}/', timeout=60)
            watch = Stopwatch(server.pid)
            assert server.stop() == 0
        assert watch.seconds() < 10
        kept.close()


def test_a_configuration_that_cannot_be_read_is_one_line(tmp_path: pathlib.Path) -> None:
    assert 'Is a directory' in failure('--config-file', str(tmp_path))
    assert 'an empty name; give a directory' in run('--state-path', '').stderr


def test_a_store_that_does_not_answer_is_one_line(tmp_path: pathlib.Path) -> None:
    config = tmp_path / 'zaqar.conf'
    uri = f'redis://127.0.0.1:{free_port()}'
    stores = 'message_store = redis\nmanagement_store = redis\n'
    where = '\n'.join(
        f'[drivers:{store}:redis]\nuri = {uri}' for store in ('message_store', 'management_store')
    )
    config.write_text(f'[drivers]\n{stores}{where}\n')
    line = failure('--config-file', str(config))
    assert 'The store cannot be opened' in line
    assert '[drivers] message_store = redis' in line or '[drivers] management_store = redis' in line
    assert '[drivers:m' in line


def test_a_misspelt_message_store_is_told_though_no_management_store_is_named(
    tmp_path: pathlib.Path,
) -> None:
    config = tmp_path / 'zaqar.conf'
    config.write_text('[drivers]\nmessage_store = sqlit\n')
    line = failure('--config-file', str(config))
    assert "[drivers] message_store: there is no driver 'sqlit'" in line
    assert 'sqlite' in line
    assert 'faulty' not in line, 'a driver of tests'


def test_a_store_that_nobody_has_named_is_told_as_the_default(tmp_path: pathlib.Path) -> None:
    (tmp_path / 'pymongo.py').write_text(
        'raise ModuleNotFoundError("No module named \'pymongo\'", name="pymongo")\n'
    )
    config = tmp_path / 'zaqar.conf'
    config.write_text('[drivers]\nmessage_store = swift\n')
    line = failure('--config-file', str(config), PYTHONPATH=f'{tmp_path}:{ROOT}')
    assert '[drivers] management_store is not set, which means mongodb' in line
    assert 'set [drivers] management_store to one of' in line


def test_a_store_that_takes_long_to_open_is_told_at_once(tmp_path: pathlib.Path) -> None:
    """The driver for MongoDB looks for its server for 30 s."""
    config = tmp_path / 'zaqar.conf'
    config.write_text('[drivers]\nmessage_store = swift\n')
    command = [sys.executable, '-m', 'zaqar_gevent.cmd', '--config-file', str(config)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as starting:
        assert starting.stderr is not None
        line = starting.stderr.readline()
        starting.terminate()
    assert 'still being opened: [drivers] management_store is not set' in line


def test_a_port_that_the_metrics_have_is_told_with_both_options(tmp_path: pathlib.Path) -> None:
    port = free_port()
    config = tmp_path / 'zaqar.conf'
    config.write_text(f'[drivers:transport:gevent]\nmetrics_port = {port}\n')
    options = ('--port', str(port), '--state-path', str(tmp_path), '--config-file', str(config))
    line = failure(*options)
    assert '--port' in line
    assert '[drivers:transport:gevent] metrics_port is the same port' in line


def test_a_store_that_there_is_not_is_told_with_its_option(tmp_path: pathlib.Path) -> None:
    config = tmp_path / 'zaqar.conf'
    config.write_text('[drivers]\nmessage_store = sqlite\nmanagement_store = sqlit\n')
    assert "[drivers] management_store: there is no driver 'sqlit'" in failure(
        '--config-file', str(config)
    )
