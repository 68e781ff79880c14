"""The access log: a line a request, whatever a client sends."""

from __future__ import annotations

import datetime
import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import pytest

from zaqar_gevent.access_log import AccessLog
from zaqar_gevent.conf import ConfigurationError

REQUEST: dict[str, Any] = {
    'request_id': 'req-1',
    'transport': 'websocket-json',
    'operation': 'message_post',
    'status': 201,
    'seconds': 0.0012345,
    'project_id': 'demo',
    'user_id': None,
    'client_id': '3381af92-2b9e-11e3-b191-71861300734c',
    'remote': '127.0.0.1',
    'bytes_in': 120,
    'bytes_out': 80,
}
ON_REST = {**REQUEST, 'transport': 'rest', 'method': 'POST', 'path': '/v2/queues/q/messages'}


@pytest.fixture
def file(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / 'access.log'


@pytest.fixture
def log(file: pathlib.Path) -> Iterator[AccessLog]:
    log = AccessLog(str(file))
    yield log
    log.close()


def lines(file: pathlib.Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding='utf-8').splitlines()]


def test_a_request_is_one_line_with_these_members(log: AccessLog, file: pathlib.Path) -> None:
    log.write(**ON_REST)
    [line] = lines(file)
    assert re.fullmatch(r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z', line['time'])
    age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(line.pop('time'))
    assert abs(age.total_seconds()) < 5
    expected = dict(ON_REST)
    del expected['seconds']
    assert line == {**expected, 'duration_ms': 1.234}


def test_every_request_has_a_line_of_its_own(log: AccessLog, file: pathlib.Path) -> None:
    for number in range(20):
        log.write(**{**REQUEST, 'request_id': f'req-{number}'})
    assert [line['request_id'] for line in lines(file)] == [f'req-{n}' for n in range(20)]


def test_only_rest_has_a_method_and_a_path(log: AccessLog, file: pathlib.Path) -> None:
    log.write(**REQUEST)
    [line] = lines(file)
    assert not line.keys() & {'method', 'path'}


def test_what_is_not_known_is_null(log: AccessLog, file: pathlib.Path) -> None:
    nothing = dict.fromkeys(('request_id', 'project_id', 'user_id', 'client_id', 'remote'))
    log.write(**{**REQUEST, **nothing, 'bytes_in': None})
    [line] = lines(file)
    assert [line[name] for name in (*nothing, 'bytes_in')] == [None] * 6


BAD = [
    *('a\nb', 'a\r\nb', 'a\x00b', 'a\x1b[2Jb', 'a\x7fb', 'a\x85b', 'a\x9bb', 'a\u2028b'),
    *('a\x0bb', 'a\x0cb', 'a\x1cb', 'a"b', 'a\\b', 'a\\', '"}\n{"status":200,"x":"', 'a\u202eb'),
    *('a\u2029b', 'queue\u00e9', '\u6d88\u606f', '\U0001f600', 'a\ud800b'),
]


@pytest.mark.parametrize('text', BAD, ids=ascii)
@pytest.mark.parametrize(
    'member', ['project_id', 'user_id', 'client_id', 'request_id', 'remote', 'path']
)
def test_no_text_of_a_client_makes_a_line(
    log: AccessLog, file: pathlib.Path, member: str, text: str
) -> None:
    log.write(**{**ON_REST, member: text})
    log.write(**ON_REST)
    written = file.read_bytes()
    assert written.isascii()
    assert not re.search(rb'[\x00-\x09\x0b-\x1f]', written)
    first, second = written.decode().splitlines()
    assert json.loads(first)[member] == text
    assert json.loads(second)[member] == ON_REST[member]


@pytest.mark.parametrize('member', ['project_id', 'user_id', 'client_id', 'request_id', 'path'])
def test_a_long_text_is_cut(log: AccessLog, file: pathlib.Path, member: str) -> None:
    log.write(**{**ON_REST, member: 'x' * 100_000})
    [line] = lines(file)
    assert line[member] == 'x' * 256


def test_a_percent_sign_is_no_format(log: AccessLog, file: pathlib.Path) -> None:
    log.write(**{**ON_REST, 'path': '/v2/queues/%s%(name)d%'})
    assert lines(file)[0]['path'] == '/v2/queues/%s%(name)d%'


def test_without_a_file_nothing_is_written(capfd: pytest.CaptureFixture[str]) -> None:
    log = AccessLog('')
    log.write(**REQUEST)
    assert not log.enabled
    assert capfd.readouterr() == ('', '')


def test_a_dash_is_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    log = AccessLog('-')
    assert log.enabled
    log.write(**REQUEST)
    output = capsys.readouterr()
    assert json.loads(output.err)['operation'] == 'message_post'
    assert output.out == ''


def test_the_lines_are_in_no_other_log(
    log: AccessLog, file: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    log.write(**REQUEST)
    assert len(lines(file)) == 1
    assert caplog.records == []


def test_two_logs_do_not_mix(log: AccessLog, file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    other = AccessLog(str(tmp_path / 'other.log'))
    other.write(**REQUEST)
    other.close()
    log.write(**REQUEST)
    assert len(lines(file)) == len(lines(tmp_path / 'other.log')) == 1


def test_a_closed_log_is_not_written_to(log: AccessLog, file: pathlib.Path) -> None:
    log.close()
    log.write(**REQUEST)
    assert not log.enabled
    assert lines(file) == []


def test_a_log_goes_on_where_it_was(log: AccessLog, file: pathlib.Path) -> None:
    log.write(**REQUEST)
    again = AccessLog(str(file))
    again.write(**REQUEST)
    again.close()
    assert len(lines(file)) == 2


def test_a_file_that_was_moved_away_is_made_anew(log: AccessLog, file: pathlib.Path) -> None:
    log.write(**REQUEST)
    moved = file.rename(file.with_suffix('.1'))
    log.write(**REQUEST)
    assert len(lines(moved)) == len(lines(file)) == 1


def test_a_file_that_cannot_be_made_anew_fails_no_request_and_is_reported(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / 'logs'
    directory.mkdir()
    log = AccessLog(str(directory / 'access.log'))
    moved = directory.rename(tmp_path / 'moved')
    log.write(**REQUEST)
    log.write(**REQUEST)
    assert capsys.readouterr().err.count('FileNotFoundError') >= 2
    moved.rename(directory)
    log.write(**REQUEST)
    log.close()
    assert len(lines(directory / 'access.log')) == 1


@pytest.mark.parametrize('place', ['.', 'missing/access.log'])
def test_a_file_that_cannot_be_written_is_refused_at_start(
    tmp_path: pathlib.Path, place: str
) -> None:
    with pytest.raises(ConfigurationError, match=r'\[drivers:transport:gevent\] access_log') as no:
        AccessLog(str(tmp_path / place))
    assert str(tmp_path / place) in str(no.value)
    assert '\n' not in str(no.value)
