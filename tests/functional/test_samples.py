"""The samples under etc/ work as they are."""

from __future__ import annotations

import configparser
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from tests.callers import TRANSPORTS, connect
from tests.server_process import ServerProcess, start_process
from zaqar_gevent import cmd

ETC = pathlib.Path(__file__).parents[2] / 'etc'


def test_gunicorn_runs_with_its_sample(tmp_path: pathlib.Path) -> None:
    sample = str(ETC / 'gunicorn.conf.py')
    process = start_process(
        [sys.executable, '-m', 'gunicorn', '-c', sample, '-b', '127.0.0.1:0'],
        {**os.environ, 'XDG_STATE_HOME': str(tmp_path), 'HOME': str(tmp_path)},
    )
    try:
        assert process.stdout is not None
        address = next(
            match[1]
            for line in process.stdout
            if (match := re.search(r'Listening at: http://(\S+)', line))
        )
        for transport in TRANSPORTS:
            caller = connect(transport, f'http://{address}', f'ws://{address}/v2/ws')
            assert caller.call('queue_create', queue_name='orders').status == 201
            caller.close()
    finally:
        process.terminate()
        process.communicate(timeout=60)
    assert not list(tmp_path.rglob('*.ctl'))


def test_a_server_runs_with_the_sample_of_its_configuration(tmp_path: pathlib.Path) -> None:
    sample = str(ETC / 'zaqar-gevent.conf.sample')
    with ServerProcess(tmp_path, '--config-file', sample) as server:
        caller = connect('rest', server.url, server.websocket_url)
        assert caller.call('ping_node').status == 204
        caller.close()


def test_the_unit_starts_the_command_as_a_user_of_its_own() -> None:
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(ETC / 'zaqar-gevent.service')
    command, *options = shlex.split(unit['Service']['ExecStart'])
    assert pathlib.PurePath(command).name == 'zaqar-gevent'
    with pytest.raises(SystemExit) as asked:
        cmd.main([*options, '--help'])
    assert asked.value.code == 0
    assert unit['Service']['DynamicUser'] == 'yes'


@pytest.mark.skipif(not shutil.which('systemd-analyze'), reason='systemd is not installed')
def test_systemd_understands_the_unit(tmp_path: pathlib.Path) -> None:
    unit = (ETC / 'zaqar-gevent.service').read_text(encoding='utf-8')
    copy = tmp_path / 'zaqar-gevent.service'
    copy.write_text(unit.replace('/usr/bin/zaqar-gevent', sys.executable), encoding='utf-8')
    checked = subprocess.run(
        ['systemd-analyze', 'verify', str(copy)], capture_output=True, text=True, timeout=60
    )
    assert 'zaqar-gevent.service' not in checked.stderr, checked.stderr
