"""Servers on PostgreSQL, and the command that works on its tables."""

from __future__ import annotations

import pathlib
import subprocess
import uuid
from typing import Any

import pytest
import requests

from tests.callers import connect
from tests.client.waiting import wait_until
from tests.functional.test_clock import Unsteady
from tests.postgres_process import ON_POSTGRESQL, PostgresProcess
from tests.server_process import COMMAND, ServerProcess


@pytest.fixture
def config(postgres: PostgresProcess) -> str:
    """The configuration of a server with a schema of its own."""
    return ON_POSTGRESQL.format(uri=postgres.uri, schema=f'zaqar_{uuid.uuid4().hex}')


def run_db(action: str, config: str, directory: pathlib.Path) -> subprocess.CompletedProcess[str]:
    return run(config, directory, 'db', action)


def run(config: str, directory: pathlib.Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command with a configuration file, until it ends by itself."""
    path = directory / 'zaqar.conf'
    path.write_text(config)
    return subprocess.run(
        [*COMMAND, *arguments, '--config-file', str(path)], text=True, capture_output=True
    )


def test_tables_are_checked_and_made_by_a_command(
    config: str, postgres: PostgresProcess, tmp_path: pathlib.Path
) -> None:
    found = run_db('check', config, tmp_path)
    assert (found.returncode, found.stderr) == (1, '')
    assert 'has no tables of this program' in found.stdout
    made = run_db('migrate', config, tmp_path)
    assert (made.returncode, made.stderr) == (0, '')
    assert 'up to date' in made.stdout
    assert run_db('check', config, tmp_path).returncode == 0
    schema = config.rpartition('schema = ')[2].strip()
    postgres.run(f'UPDATE {schema}.schema_version SET version = 99')
    newer = run_db('check', config, tmp_path)
    assert (newer.returncode, 'version 99' in newer.stderr) == (1, True)
    postgres.run(f'UPDATE {schema}.schema_version SET version = 3')
    gone = run_db('check', config.replace('127.0.0.1:', '127.0.0.1:1'), tmp_path)
    assert gone.returncode == 3
    assert 'invalid port' in gone.stderr
    assert run_db('check', '[DEFAULT]\n', tmp_path).returncode == 3


def test_a_server_starts_only_with_tables_if_it_may_not_make_them(
    config: str, tmp_path: pathlib.Path
) -> None:
    config = config.replace('schema =', 'migrate_at_start = false\nschema =')
    refused = run(config, tmp_path, '--port', '0', '--state-path', str(tmp_path))
    assert refused.returncode == 1
    assert 'zaqar-gevent db migrate' in refused.stderr
    assert run_db('migrate', config, tmp_path).returncode == 0
    with ServerProcess(tmp_path / 'state', config=config) as server:
        caller = connect('rest', server.url, server.websocket_url)
        assert caller.call('queue_create', queue_name='q').status == 201
        assert caller.call('get_capabilities').body['idempotency_seconds'] == 300
        caller.close()


def test_a_store_that_is_gone_is_told_at_start(config: str, tmp_path: pathlib.Path) -> None:
    config = config.replace('127.0.0.1:', '127.0.0.1:1')
    refused = run(config, tmp_path, '--port', '0', '--state-path', str(tmp_path))
    assert refused.returncode == 1
    assert 'PostgreSQL at' in refused.stderr


def test_a_clock_that_differs_is_told_and_refused(
    config: str, postgres: PostgresProcess, tmp_path: pathlib.Path
) -> None:
    ahead = Unsteady(tmp_path / 'ahead', config=config)
    ahead.step(300)
    with pytest.raises(AssertionError, match=r'a clock that is [0-9.]+ s behind that of'), ahead:
        pass
    name = f'clock_{uuid.uuid4().hex}'
    config = config.replace('/postgres', f'/postgres?application_name={name}')
    server = Unsteady(tmp_path / 'slow', config=config)
    server.step(-3)

    def is_told(text: str) -> bool:
        return any(text in line for line in server.output)

    def becomes(status: int) -> bool:
        """Whether it is in this state; clocks are compared on new connections."""
        postgres.run(f"""SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity
            WHERE application_name = '{name}'""")
        found = requests.get(f'{server.url}/healthcheck', timeout=60)
        return bool(found.status_code == status)

    with server:
        wait_until(lambda: is_told('s ahead of that of this server'), 60, 'the log says so')
        assert requests.get(f'{server.url}/healthcheck', timeout=60).status_code == 200
        server.step(300)
        wait_until(lambda: becomes(503), 60, 'the difference is noticed')
        assert is_told('s behind that of this server')
        server.step(0)
        wait_until(lambda: becomes(200), 60, 'the agreement is noticed')
        wait_until(lambda: is_told('agrees with that of this server again'), 60, 'it is logged')


LIMITS = '\n'.join(
    f'{name} = {2**40}' for name in ('max_message_ttl', 'max_claim_ttl', 'max_claim_grace')
)


def test_numbers_may_be_larger_than_an_integer(config: str, tmp_path: pathlib.Path) -> None:
    config += f'[transport]\n{LIMITS}\n[drivers:transport:gevent]\nmetadata_cache_seconds = 0\n'
    with ServerProcess(tmp_path / 'state', config=config) as server:
        caller = connect('rest', server.url, server.websocket_url)

        def call(action: str, **arguments: Any) -> Any:
            answer = caller.call(action, queue_name='orders', **arguments)
            assert answer.status < 300, (action, arguments, answer)
            return answer.body

        metadata = {'_dead_letter_queue': 'dead', '_max_claim_count': 2**40}
        metadata |= dict.fromkeys(
            ('_dead_letter_queue_messages_ttl', '_default_message_ttl'), 2**37
        )
        assert caller.call('queue_create', queue_name='dead').status == 201
        call('queue_create', metadata=metadata)
        for number, ttl in enumerate((2**31 - 1, 2**31, 2**32, 2**37)):
            made = call('subscription_create', subscriber=f'http://h{number}/', ttl=ttl)
            assert call('subscription_get', **made)['ttl'] == 2**31 - 1
            call('subscription_update', **made, ttl=ttl)
            call('message_post', messages=[{'body': 1, 'ttl': ttl}, {'body': 2}])
            lease = {'ttl': ttl, 'grace': ttl}
            claimed = call('claim_create', **lease, limit=1)['claim_id']
            call('claim_update', claim_id=claimed, **lease)
            assert call('claim_get', claim_id=claimed)['ttl'] == 10**9
        # Dead letters get the TTL of their queue.
        once = {'op': 'replace', 'path': '/metadata/_max_claim_count', 'value': 1}
        call('queue_update', changes=[once])
        call('claim_delete', claim_id=claimed)
        call('claim_create')
        dead = caller.call('message_list', queue_name='dead', echo=True).body['messages']
        assert [message['ttl'] for message in dead] == [2**31 - 1]
        caller.close()
