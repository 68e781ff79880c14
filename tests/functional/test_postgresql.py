"""Servers on PostgreSQL, and the command that works on its tables."""

from __future__ import annotations

import pathlib
import subprocess
import uuid

import pytest

from tests.callers import connect
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


def test_tables_are_checked_and_made_by_a_command(config: str, tmp_path: pathlib.Path) -> None:
    found = run_db('check', config, tmp_path)
    assert (found.returncode, found.stderr) == (1, '')
    assert 'has no tables of this program' in found.stdout
    made = run_db('migrate', config, tmp_path)
    assert (made.returncode, made.stderr) == (0, '')
    assert 'up to date' in made.stdout
    assert run_db('check', config, tmp_path).returncode == 0
    gone = run_db('check', config.replace('127.0.0.1:', '127.0.0.1:1'), tmp_path)
    assert gone.returncode == 3
    assert 'unavailable' in gone.stderr
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
