"""What the log may hold: no message and no token."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import requests
import websocket

from tests.callers import TRANSPORTS, connect
from tests.server_process import ServerProcess

# What a pipe takes that nobody reads, on Linux.
PIPE_BYTES = 65_536
SECRET = 'a-secret-that-must-not-be-logged'


def test_neither_bodies_nor_tokens_are_logged(tmp_path: pathlib.Path) -> None:
    config = '[DEFAULT]\nadmin_mode = True\nlog_file =\n'
    with ServerProcess(tmp_path, config=config) as server:
        for transport in TRANSPORTS:
            caller = connect(transport, server.url, server.websocket_url)
            headers = {**caller.identity.headers(), 'X-Auth-Token': SECRET}
            for messages in ([{'body': SECRET}], [{'body': SECRET, 'ttl': SECRET}]):
                caller.call('message_post', headers=headers, queue_name='q', messages=messages)
            caller.call('message_list', headers=headers, queue_name='q', echo=True)
            caller.call('queue_create', headers=headers, queue_name=SECRET * 9)
            caller.close()
        server.stop()
    assert SECRET not in '\n'.join(server.output)


def test_whoever_reads_but_the_first_line_does_not_stop_the_server(tmp_path: pathlib.Path) -> None:
    """The log is on standard error; nothing follows on standard output, whose pipe may be full."""
    file = tmp_path / 'zaqar.conf'
    file.write_text('[DEFAULT]\ndebug = True\n')
    command = [sys.executable, '-m', 'zaqar_gevent.cmd', '--port', '0', '--config-file', str(file)]
    env = {**os.environ, 'XDG_STATE_HOME': str(tmp_path)}
    with (tmp_path / 'log').open('w') as log:
        process = subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=log, text=True, bufsize=0
        )
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split()[5].rstrip(',')
            address = url.replace('http:', 'ws:')
            while (tmp_path / 'log').stat().st_size < PIPE_BYTES + 10_000:
                # Each connection is two lines at DEBUG.
                websocket.create_connection(address, timeout=60).close()
            assert requests.get(url, timeout=60).status_code == 300
            process.terminate()
            assert process.wait(60) == 0
            assert process.stdout.read() == ''
            process.stdout.close()
        finally:
            process.kill()
            process.wait()


def test_a_log_that_is_configured_goes_there_alone(tmp_path: pathlib.Path) -> None:
    config = f'[DEFAULT]\ndebug = True\nlog_file = {tmp_path}/zaqar.log\n'
    with ServerProcess(tmp_path, config=config) as server:
        caller = connect('ws-json', server.url, server.websocket_url)
        assert caller.call('queue_list').status == 200
        caller.close()
        server.stop()
    assert len(server.output) == 1
    assert 'DEBUG' in (tmp_path / 'zaqar.log').read_text()
