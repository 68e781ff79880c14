"""The subcommands of `zaqar-gevent` as scripts and people meet them."""

from __future__ import annotations

import functools
import http.server
import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import threading
import time
import uuid
from importlib.metadata import version

import pytest

from tests.client.commands import COMMAND, SECONDS, Shell
from tests.client.waiting import wait_until
from tests.intermediaries import Intermediary
from tests.ports import free_port
from tests.server_process import ServerProcess
from zaqar_gevent import program
from zaqar_gevent.client import Client
from zaqar_gevent.terminal.arguments import parse
from zaqar_gevent.terminal.commands import COMMANDS, GROUPS


def bodies(records: list[dict]) -> list[object]:
    return [record['body'] for record in records]


def test_bodies_are_json_or_else_text(shell: Shell) -> None:
    given = ['{"sku": 42}', '7', 'true', 'null', 'two words', '"quoted"', '{broken', 'NaN']
    posted = shell.records('post', 'orders', *given)
    assert len({record['id'] for record in posted}) == len(given)
    listed = shell.records('list', 'orders')
    assert [record['id'] for record in listed] == [record['id'] for record in posted]
    assert bodies(listed) == [{'sku': 42}, 7, True, None, 'two words', 'quoted', '{broken', 'NaN']


# Bodies of which something would be lost if they were not taken as they are.
@pytest.mark.parametrize(
    'given', ['', ' ', 'a\r', '\r', '\ufeffa', '{"a": 1, "a": 2}', '[{"a":1,"a":1}]']
)
@pytest.mark.parametrize('options', [(), ('--text',), ('--transport', 'rest')])
def test_a_body_is_posted_as_it_is_given(
    shell: Shell, given: str, options: tuple[str, ...]
) -> None:
    assert len(shell.records('post', 'orders', given, 'after', *options)) == 2
    assert bodies(shell.records('list', 'orders')) == [given, 'after']


@pytest.mark.parametrize('transport', ['auto', 'rest'])
def test_a_null_is_a_body_like_others(shell: Shell, transport: str) -> None:
    shell.records('post', 'orders', 'null', '--transport', transport)
    for command in ('list', 'claim'):
        [record] = shell.records(command, 'orders', '--transport', transport)
        assert 'body' in record
        assert record['body'] is None


def test_a_byte_order_mark_at_the_start_is_no_part_of_the_first_line(
    shell: Shell, tmp_path: pathlib.Path
) -> None:
    file = tmp_path / 'bodies'
    file.write_bytes(b'\xef\xbb\xbf{"n": 1}\r\n\xef\xbb\xbfkept\r\n')
    shell.records('post', 'orders', '--file', str(file))
    shell.records('post', 'orders', given='\ufeff7\n')
    shell.records('post', 'orders', given='\ufeff\n8')
    assert bodies(shell.records('list', 'orders')) == [{'n': 1}, '\ufeffkept', 7, 8]


def test_a_line_loses_its_end_and_nothing_else(shell: Shell, tmp_path: pathlib.Path) -> None:
    file = tmp_path / 'bodies'
    file.write_bytes(b'a\r\r\n\n\r\n b \r\nc\x00\nlast\r')
    shell.records('post', 'orders', '--text', '--file', str(file))
    assert bodies(shell.records('list', 'orders')) == ['a\r', ' b ', 'c\0', 'last']


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_post_tells_what_was_posted(
    shell: Shell, server: ServerProcess, number: signal.Signals
) -> None:
    """What is on its way is waited for, and then no more is sent."""
    shell.records('queue', 'create', 'orders')
    with (
        Intermediary(server.port, 'buffer', hold=4) as proxy,
        Client(server.url, project=shell.env['ZAQAR_PROJECT']) as client,
    ):
        orders = client.queue('orders')
        command = ('post', 'orders', *map(str, range(4)), '--batch', '2', '--url', proxy.url)
        with shell.start(*command, '--transport', 'rest') as posting:
            wait_until(lambda: orders.stats()['messages']['total'] > 0, SECONDS, 'the first batch')
            posting.send_signal(number)
            output, _ = posting.communicate(timeout=SECONDS)
    assert posting.returncode == 128 + number
    assert len(output.splitlines()) == len(shell.records('list', 'orders')) == 2


def test_text_is_taken_as_it_is_where_that_is_wanted(shell: Shell) -> None:
    shell.records('post', 'orders', '--text', '7', '{"sku": 42}')
    assert bodies(shell.records('list', 'orders')) == ['7', '{"sku": 42}']


@pytest.mark.parametrize('options', [(), ('--batch', '7'), ('--transport', 'rest')])
def test_lines_of_the_input_are_posted_in_order(shell: Shell, options: tuple[str, ...]) -> None:
    lines = '\n'.join(f'{{"n": {number}}}' for number in range(120)) + '\n\nlast, without an end'
    assert len(shell.records('post', 'orders', *options, given=lines)) == 121
    listed = bodies(shell.records('list', 'orders'))
    assert listed == [*({'n': number} for number in range(120)), 'last, without an end']


def test_lines_are_posted_as_they_come(shell: Shell) -> None:
    with shell.start('post', 'orders') as posting:
        assert posting.stdin is not None
        assert posting.stdout is not None
        for number in range(3):
            posting.stdin.write(f'{number}\n')
            posting.stdin.flush()
            assert json.loads(posting.stdout.readline())['id']
        posting.communicate(timeout=SECONDS)
    assert posting.returncode == 0


def test_lines_of_a_file_are_posted(shell: Shell, tmp_path: pathlib.Path) -> None:
    file = tmp_path / 'bodies'
    file.write_bytes(b'1\r\n"\xc3\xa9"\r\n')
    shell.records('post', 'orders', '--file', str(file), '--ttl', '300')
    listed = shell.records('list', 'orders')
    assert bodies(listed) == [1, 'é']
    assert {record['ttl'] for record in listed} == {300}


def test_queues_are_listed(shell: Shell) -> None:
    for name in ('a', 'b', 'c'):
        shell.records('post', name, '1')
    assert shell.records('list') == [{'name': 'a'}, {'name': 'b'}, {'name': 'c'}]
    assert shell.records('list', '--limit', '1', '--marker', 'a') == [{'name': 'b'}]


def test_messages_are_listed_from_a_marker_to_a_limit(shell: Shell) -> None:
    posted = shell.records('post', 'orders', *map(str, range(50)))
    after = shell.records('list', 'orders', '--marker', posted[9]['id'], '--limit', '30')
    assert bodies(after) == list(range(10, 40))


def test_claimed_messages_are_left_out_where_that_is_wanted(shell: Shell) -> None:
    shell.records('post', 'orders', '1', '2', '3')
    claimed = shell.records('claim', 'orders', '--limit', '2', '--ttl', '60', '--grace', '60')
    assert bodies(claimed) == [1, 2]
    assert len({record['claim_id'] for record in claimed}) == 1
    assert bodies(shell.records('list', 'orders')) == [1, 2, 3]
    assert bodies(shell.records('list', 'orders', '--unclaimed')) == [3]


def test_a_claim_may_delete_what_it_prints(shell: Shell) -> None:
    shell.records('post', 'orders', '1', '2', '3')
    assert bodies(shell.records('claim', 'orders', '--limit', '2', '--delete')) == [1, 2]
    assert bodies(shell.records('list', 'orders')) == [3]
    assert bodies(shell.records('claim', 'orders', '--delete')) == [3]
    assert shell.records('claim', 'orders', '--delete') == []


def test_a_claim_may_wait(shell: Shell) -> None:
    shell.records('post', 'orders', '1')
    shell.records('claim', 'orders', '--delete')
    with shell.start('claim', 'orders', '--wait', '20') as claiming:
        shell.records('post', 'orders', '2')
        output, _ = claiming.communicate(timeout=SECONDS)
    assert json.loads(output)['body'] == 2


@pytest.mark.parametrize('transport', ['websocket', 'rest'])
def test_a_queue_is_followed(shell: Shell, transport: str) -> None:
    shell.records('post', 'orders', '1', '2')
    options = ('--from-start', '--limit', '4', '--transport', transport)
    with shell.start('tail', 'orders', *options) as tailing:
        assert tailing.stdout is not None
        assert [json.loads(tailing.stdout.readline())['body'] for _ in range(2)] == [1, 2]
        shell.records('post', 'orders', '3', '4')
        output, errors = tailing.communicate(timeout=SECONDS)
    assert bodies([json.loads(line) for line in output.splitlines()]) == [3, 4]
    assert (tailing.returncode, errors) == (0, '')


def test_a_queue_is_followed_from_a_marker(shell: Shell) -> None:
    posted = shell.records('post', 'orders', '1', '2', '3')
    marker = posted[0]['id']
    followed = shell.records('tail', 'orders', '--marker', marker, '--limit', '2')
    assert bodies(followed) == [2, 3]


@pytest.mark.parametrize('transport', ['websocket', 'rest'])
def test_attributes_are_posted_and_shown(shell: Shell, transport: str) -> None:
    given = ('--attribute', 'type=order', '--attribute', 'note=a=b c', '--transport', transport)
    [posted] = shell.records('post', 'orders', '1', *given)
    attributes = {'type': 'order', 'note': 'a=b c'}
    options = ('--transport', transport)
    for command in (
        ('list', 'orders'),
        ('get', 'orders', posted['id']),
        ('tail', 'orders', '--from-start', '--limit', '1'),
        ('claim', 'orders'),
    ):
        [shown] = shell.records(*command, *options)
        assert shown['attributes'] == attributes, command
    assert shown['attempt'] == 1
    terminal = shell.on_terminal('list', 'orders', *options)
    assert terminal.finish() == 0
    assert "claimed  type=order  note='a=b c'  1" in terminal.shown
    status, line = shell.failure('post', 'orders', '1', '--attribute', 'no name=1', *options)
    assert status == 1
    assert "unlike 'no name'" in line


def test_a_group_is_posted_and_shown(shell: Shell) -> None:
    [posted] = shell.records('post', 'orders', '1', '--group', 'customer 42')
    for command in (
        ('list', 'orders'),
        ('get', 'orders', posted['id']),
        ('tail', 'orders', '--from-start', '--limit', '1'),
        ('claim', 'orders'),
    ):
        [shown] = shell.records(*command)
        assert shown['group'] == 'customer 42', command
    terminal = shell.on_terminal('list', 'orders')
    assert terminal.finish() == 0
    assert "claimed  ['customer 42']  1" in terminal.shown
    assert shell.failure('post', 'orders', '1', '--group', 'x' * 129)[0] == 1


@pytest.mark.parametrize('transport', ['websocket', 'rest'])
def test_a_queue_is_followed_by_a_filter(shell: Shell, transport: str) -> None:
    for number, kind in enumerate(('gift', 'order', 'refund')):
        given = ('--attribute', f'type={kind}', '--attribute', 'region=eu-1')
        shell.records('post', 'orders', str(number), *given)
    options = ('--from-start', '--transport', transport)
    wanted = ('--filter', 'type=refund', '--filter', '{"region": {"prefix": "eu-"}}')
    assert bodies(shell.records('tail', 'orders', *options, *wanted, '--limit', '1')) == [2]
    status, line = shell.failure('tail', 'orders', *options, '--filter', '{"type": []}')
    assert status == 2
    assert '1 to 100 texts, not 0 - at `filter.type`' in line


def test_a_webhook_has_a_filter(shell: Shell) -> None:
    uri = 'http://127.0.0.1:9/'
    wanted = ('--filter', 'type=order')
    [made] = shell.records('subscription', 'create', 'orders', uri, *wanted, '--option', 'a=1')
    [found] = shell.records('subscription', 'list', 'orders')
    assert found['options'] == {'a': 1, 'filter': {'type': 'order'}}
    shell.records('subscription', 'set', 'orders', made['id'], '--filter', 'type=gift')
    [found] = shell.records('subscription', 'list', 'orders')
    assert found['options'] == {'filter': {'type': 'gift'}}


def test_messages_are_scheduled(shell: Shell) -> None:
    shell.records('post', 'orders', '1', '--deliver-at', str(time.time() + 3600))
    shell.records('post', 'orders', '2', '--deliver-at', '2020-01-01T00:00:00Z')
    assert bodies(shell.records('list', 'orders')) == [2]
    assert sorted(bodies(shell.records('list', 'orders', '--delayed'))) == [1, 2]
    status, line = shell.failure('post', 'orders', '1', '--deliver-at', 'tomorrow')
    assert status == 1
    assert 'RFC 3339' in line


def test_queues_are_counted(shell: Shell) -> None:
    shell.records('post', 'a', '1', '2', '3')
    shell.records('post', 'b', '1')
    shell.records('claim', 'a', '--limit', '1')
    counted = shell.records('stats')
    assert [record['queue'] for record in counted] == ['a', 'b']
    [alone] = shell.records('stats', 'a')
    assert (alone['free'], alone['claimed'], alone['total']) == (2, 1, 3)


def test_counts_are_watched(shell: Shell) -> None:
    shell.records('post', 'orders', '1')
    with shell.start('stats', 'orders', '--watch', '0.2') as watching:
        assert watching.stdout is not None
        first = json.loads(watching.stdout.readline())
        assert 'change_per_second' not in first
        shell.records('post', 'orders', '2', '3')
        rates = []
        while True:
            record = json.loads(watching.stdout.readline())
            rates.append(record['change_per_second'])
            if record['total'] == 3:
                break
        assert rates[-1] > 0
        watching.send_signal(signal.SIGINT)
        _, errors = watching.communicate(timeout=SECONDS)
    assert (watching.returncode, errors) == (130, '')


@pytest.mark.parametrize('encoding', ['msgpack', 'json'])
def test_a_server_is_pinged(shell: Shell, server: ServerProcess, encoding: str) -> None:
    answers = shell.records('ping', '--count', '3', '--interval', '0', '--encoding', encoding)
    assert len(answers) == 3
    for answer in answers:
        assert 0 < answer.pop('milliseconds') < 5000
        assert answer.pop('server').startswith('zaqar_gevent/')
        assert answer == {
            'url': server.url,
            'transport': 'websocket',
            'protocol': 'zaqar.v2',
            'encoding': encoding,
        }


def test_a_cloud_says_where_the_server_is(server: ServerProcess, tmp_path: pathlib.Path) -> None:
    (tmp_path / 'clouds.yaml').write_text(
        f'clouds: {{here: {{auth_type: none, auth: {{endpoint: "{server.url}"}}}}}}'
    )
    cloud = {'ZAQAR_CLOUD': 'here', 'OS_CLIENT_CONFIG_FILE': str(tmp_path / 'clouds.yaml')}
    shell = Shell('', uuid.uuid4().hex, **cloud)
    assert shell.records('ping')[0]['url'] == server.url
    assert len(shell.records('post', 'orders', '1')) == 1
    status, told = shell.failure('ping', '--cloud', 'nowhere')
    assert status == 2
    assert 'nowhere' in told
    status, told = shell.failure('ping', '--token', 'secret')
    assert status == 2
    assert 'token' in told
    assert 'secret' not in told


def test_rest_may_be_chosen_by_the_environment(server: ServerProcess) -> None:
    shell = Shell(server.url, 'demo', ZAQAR_TRANSPORT='rest')
    [answer] = shell.records('ping')
    assert (answer['transport'], answer['encoding']) == ('rest', 'json')
    [answer] = shell.records('ping', '--transport', 'websocket')
    assert answer['transport'] == 'websocket'


@pytest.mark.parametrize(
    ('arguments', 'told'),
    [
        (('list', '--url', 'ftp://127.0.0.1'), 'ftp'),
        (('list', '--url', '127.0.0.1:8888'), 'did you mean http://127.0.0.1:8888?'),
        (('post', 'orders', '1', '--tll', '5'), 'there is no option --tll. Did you mean --ttl?'),
        (('queue', 'set', 'a', '--max-clams=3'), 'Did you mean --max-claims?'),
        (('queue', 'create', 'a', 'b'), 'an argument too many: b'),
        (('list', '--url', 'http://127.0.0.1:99999'), 'ort'),
        (('post', 'orders', '--file', '/nowhere', '1'), 'file'),
    ],
)
def test_wrong_usage_is_told_in_a_line(shell: Shell, arguments: tuple[str, ...], told: str) -> None:
    status, line = shell.failure(*arguments)
    assert status == 2
    assert told in line


@pytest.mark.parametrize(
    ('arguments', 'told'),
    [
        (('list', '--limit', '0'), 'a whole number of at least 1'),
        (('list', '--client-id', 'me'), 'me'),
        (('list', '--token', 'a\nb'), 'ASCII'),
        (('list', '--project', 'é'), 'ASCII'),
        (('list', '--encoding', 'xml'), 'xml'),
        (('stats', '--watch', 'now'), 'now'),
        (('consume', 'orders'), '--exec'),
        (('post',), 'QUEUE'),
    ],
)
def test_wrong_arguments_are_told_after_the_usage(
    shell: Shell, arguments: tuple[str, ...], told: str
) -> None:
    finished = shell.run(*arguments)
    assert finished.returncode == 2
    assert told in finished.stderr.splitlines()[-1]
    assert finished.stderr.startswith('usage: ')


def test_a_wrong_environment_is_told(server: ServerProcess) -> None:
    finished = Shell(server.url, 'demo', ZAQAR_ENCODING='xml').run('ping')
    assert finished.returncode == 2
    assert 'ZAQAR_ENCODING' in finished.stderr.splitlines()[-1]


def test_what_the_server_refuses_is_told_in_a_line(shell: Shell, tmp_path: pathlib.Path) -> None:
    status, line = shell.failure('post', 'orders', '1', '--ttl', '1')
    assert status == 1
    assert '400' in line
    status, line = shell.failure('post', 'orders', '--file', str(tmp_path))
    assert (status, str(tmp_path) in line) == (1, True)
    file = tmp_path / 'long'
    file.write_bytes(b'x' * 300_000)
    status, line = shell.failure('post', 'orders', '--file', str(file))
    assert (status, '4' in line) == (1, True)


# The third line is refused: before it is sent, by the client that writes it, or by the server.
@pytest.mark.parametrize('transport', ['websocket', 'rest'])
@pytest.mark.parametrize(
    ('bad', 'told'),
    [
        (b'\xff', 'line 3 is not UTF-8; 2 were posted'),
        (b'9' * 30, 'line 3 '),
        (b'"\\ud800"', 'line 3 '),
        (b'[' * 100 + b']' * 100, 'line 3 '),
        (b'x' * 300_000, 'line 3 was refused: '),
    ],
)
@pytest.mark.parametrize('batch', ['1', '2', '50'])
def test_lines_before_a_bad_one_are_posted(
    shell: Shell, tmp_path: pathlib.Path, bad: bytes, told: str, transport: str, batch: str
) -> None:
    file = tmp_path / 'lines'
    file.write_bytes(b'\n'.join((b'1', b'2', bad, b'3')))
    posting = shell.run(
        'post', 'orders', '--file', str(file), '--transport', transport, '--batch', batch
    )
    assert posting.returncode == 1
    [line] = posting.stderr.splitlines()
    assert line.startswith(f'zaqar-gevent: {told}')
    assert line.endswith('; 2 were posted')
    assert len(posting.stdout.splitlines()) == 2
    assert bodies(shell.records('list', 'orders')) == [1, 2]


def test_the_number_of_a_bad_line_counts_empty_lines(shell: Shell, tmp_path: pathlib.Path) -> None:
    file = tmp_path / 'lines'
    file.write_bytes(b'\n1\n\n\xff\n')
    posting = shell.run('post', 'orders', '--file', str(file))
    assert posting.stderr == 'zaqar-gevent: line 4 is not UTF-8; 1 were posted\n'


def test_a_bad_body_of_the_command_line_is_named(shell: Shell) -> None:
    posting = shell.run('post', 'orders', '1', '9' * 30, '2')
    assert posting.returncode == 1
    assert posting.stderr.startswith('zaqar-gevent: body 2 ')
    assert bodies(shell.records('list', 'orders')) == [1]


def test_a_missing_queue_is_all_that_is_missed(shell: Shell) -> None:
    assert shell.run('post').stderr.splitlines()[-1].endswith('required: QUEUE')


@pytest.mark.parametrize(
    ('arguments', 'told'),
    [
        (
            ('--prt', '1'),
            'there is no option --prt. Did you mean --port? zaqar-gevent --help lists all',
        ),
        (('help', 'psot'), "there is no command 'psot'. Did you mean post?"),
        (('help', 'nope'), "there is no command 'nope'. Commands are: serve, "),
        (('pst', 'orders'), "there is no command 'pst'. Did you mean post? Commands are: serve, "),
        (('--json', 'list'), 'list has to come first, as all commands: serve, '),
    ],
)
def test_what_the_server_does_not_take_is_named(
    shell: Shell, arguments: tuple[str, ...], told: str
) -> None:
    finished = shell.run(*arguments)
    assert finished.returncode == 2
    assert f'error: {told}' in finished.stderr.splitlines()[-1]


def test_the_version_is_told(shell: Shell) -> None:
    finished = shell.run('--version')
    assert (finished.returncode, finished.stderr) == (0, '')
    assert finished.stdout == f'zaqar-gevent {version("zaqar_gevent")}\n'


def test_a_post_without_an_answer_may_have_been_made(shell: Shell, server: ServerProcess) -> None:
    with Intermediary(server.port, 'buffer', hold=5) as proxy:
        status, line = shell.failure(
            'post', 'orders', '1', '--url', proxy.url, '--transport', 'rest', '--timeout', '1'
        )
    assert status == 3
    assert line.endswith('Messages that were being sent may have been posted.')


@pytest.mark.parametrize('transport', ['websocket', 'rest'])
@pytest.mark.parametrize('body', ['"\\ud800"', '9' * 30, '[' * 900 + ']' * 900])
def test_a_body_that_cannot_be_sent_is_told_in_a_line(
    shell: Shell, body: str, transport: str
) -> None:
    status, _ = shell.failure('post', 'orders', body, '--transport', transport)
    assert status == 1
    assert shell.records('list') == []


def test_a_wrong_path_of_the_server_is_told_once(shell: Shell, server: ServerProcess) -> None:
    status, line = shell.failure('ping', '--url', f'{server.url}/xx')
    assert (status, line) == (1, 'zaqar-gevent: 404 Not Found')


def test_a_server_of_something_else_is_told_in_a_line(tmp_path: pathlib.Path) -> None:
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as other:
        threading.Thread(target=other.serve_forever).start()
        try:
            shell = Shell(f'http://127.0.0.1:{other.server_port}', 'demo')
            for command in (('ping',), ('list', 'orders'), ('post', 'orders', '1')):
                status, line = shell.failure(*command)
                assert (status, len(line) < 400) == (1, True)
                assert f'The server at {shell.env["ZAQAR_URL"]} is no Zaqar: it answered ' in line
        finally:
            other.shutdown()


@pytest.mark.parametrize(
    ('redirected', 'status', 'told'),
    [
        ('list orders >&-', 0, ''),
        ('list orders > /dev/full', 1, 'zaqar-gevent: No space left on device\n'),
        ('post orders <&-', 0, ''),
        ('post orders 1 >&- <&-', 0, ''),
        ('list --limit 0 2>&-', 2, ''),
    ],
)
def test_streams_that_are_closed_or_full_are_borne(
    shell: Shell, redirected: str, status: int, told: str
) -> None:
    shell.records('post', 'orders', '1')
    command = f'exec {shlex.join(COMMAND)} {redirected}'
    finished = subprocess.run(
        ['/bin/sh', '-c', command], env=shell.env, capture_output=True, text=True, timeout=SECONDS
    )
    assert (finished.returncode, finished.stderr) == (status, told)


def test_a_server_that_is_not_there_is_told_in_a_line() -> None:
    port = free_port()
    for command in (('ping',), ('list', 'orders'), ('post', 'orders', '1')):
        shell = Shell(f'http://127.0.0.1:{port}', 'demo')
        status, line = shell.failure(*command, '--timeout', '1')
        assert status == 3
        assert str(port) in line
        assert 'Start a server with `zaqar-gevent`, or name one with --url or ZAQAR_URL' in line


def test_a_server_that_is_there_is_not_to_be_started(server: ServerProcess) -> None:
    """It is reached, but has no TLS."""
    shell = Shell(f'https://127.0.0.1:{server.port}', 'demo')
    status, line = shell.failure('ping', '--timeout', '3')
    assert status == 3
    assert 'SSL' in line
    assert 'Start a server' not in line


@pytest.mark.parametrize(
    'arguments', [('tail', 'orders'), ('consume', 'orders', '--exec', 'cat'), ('stats', '--watch')]
)
@pytest.mark.parametrize(('number', 'status'), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_what_goes_on_is_ended_by_a_signal(
    shell: Shell, arguments: tuple[str, ...], number: int, status: int
) -> None:
    shell.records('post', 'orders', '1')
    terminal = shell.on_terminal(*arguments)
    terminal.read_until(lambda shown: 'orders' in shown)
    terminal.process.send_signal(number)
    assert terminal.finish() == status
    assert 'Traceback' not in terminal.shown


def test_nobody_reading_the_output_ends_it_quietly(shell: Shell) -> None:
    for _ in range(4):
        shell.records('post', 'orders', *('x' * 900 for _ in range(100)))
    with shell.start('list', 'orders') as listing:
        assert listing.stdout is not None
        assert listing.stderr is not None
        listing.stdout.readline()
        listing.stdout.close()
        assert listing.wait(SECONDS) == 141
        assert listing.stderr.read() == ''


@pytest.mark.parametrize('command', [('completion', 'bash'), ('version',)])
def test_nobody_reading_what_needs_no_server_is_quiet_too(
    shell: Shell, command: tuple[str, ...]
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = shell.start(*command, stdout=writing)
    os.close(writing)
    _, errors = process.communicate(timeout=SECONDS)
    assert (process.returncode, errors) == (141, '')


@pytest.mark.parametrize('command', [('tail', '--from-start'), ('stats', '--watch', '600')])
def test_nobody_reading_ends_what_has_nothing_to_print_as_well(
    shell: Shell, command: tuple[str, ...]
) -> None:
    shell.records('post', 'orders', '1')
    with shell.start(*command, 'orders') as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.readline()
        running.stdout.close()
        assert running.wait(SECONDS) == 141
        assert running.stderr.read() == ''


def test_a_server_that_ends_while_it_is_followed_is_waited_for(
    tmp_path: pathlib.Path,
) -> None:
    with (
        ServerProcess(tmp_path, '--port', str(free_port())) as server,
        Shell(server.url, 'demo') as shell,
    ):
        shell.records('post', 'orders', '1')
        with shell.start('tail', 'orders', '--from-start', '--limit', '2') as tailing:
            assert tailing.stdout is not None
            tailing.stdout.readline()
            server.kill()
            server.start()
            shell.records('post', 'orders', '2')
            output, errors = tailing.communicate(timeout=SECONDS)
    assert json.loads(output)['body'] == 2
    assert (tailing.returncode, errors) == (0, '')


def documented_commands() -> set[tuple[str, ...]]:
    """The names in the first columns of the guide's tables of commands."""
    guide = (pathlib.Path(__file__).parents[2] / 'docs' / 'terminal.md').read_text()
    found = set()
    for column in re.findall(r'^\| (`[a-z][^|]*) \|', guide, re.MULTILINE):
        names = re.findall(r'`([a-z]+(?: [a-z]+)?)', column)
        group = names[0].split()[:1] if ' ' in names[0] else []
        found |= {tuple(names[0].split()), *((*group, *name.split()) for name in names[1:])}
    return found


@pytest.mark.parametrize(
    'command',
    sorted({*COMMANDS, *((name,) for name in GROUPS), *documented_commands()}),
    ids=' '.join,
)
def test_each_command_describes_itself(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        # As the program ends with the status.
        raise SystemExit(program.main([*command, '--help']))
    assert not ended.value.code
    told = capsys.readouterr().out
    name = '' if command in (('serve',), ('help',)) else ' ' + ' '.join(command)
    assert told.startswith(f'usage: zaqar-gevent{name} ')
    if command in COMMANDS:
        for expected in ('ZAQAR_URL', 'exit status', '--transport'):
            assert expected in told


def test_the_guide_has_all_commands() -> None:
    named = {command[0] for command in documented_commands()}
    assert named >= {command[0] for command in COMMANDS}


@pytest.mark.parametrize(
    ('arguments', 'told'),
    [
        (('redrive', 'jobs', '--rate', '0'), "redrive: error: argument --rate: '0' is not a rate"),
        (('redrive', 'jobs', '--rate', 'inf'), '0.01 to 100000 a second'),
        (('list', '--limit', 'ten'), "'ten' is not a whole number of at least 1"),
        (('post', 'jobs', '--ttl', '-1'), "'-1' is not a whole number of at least 0"),
        (('ping', '--timeout', '0'), "'0' is not a number of seconds above 0"),
        (('ping', '--interval', 'nan'), "'nan' is not a number of seconds, 0 or more"),
        (('ping', '--client-id', 'me'), "'me' is not a UUID"),
        (('queue', 'create', 'a', '--retry-delay', '1,x'), 'INITIAL,FACTOR,MAX'),
        (('queue', 'lst'), "there is no command 'queue lst'. Did you mean list? Commands are: "),
        (('queue', 'nothing'), 'Commands are: list, create, show, set, delete, purge, migrate'),
        (('post', '-q'), 'A name or a body that starts with a dash comes after --'),
    ],
)
def test_an_error_says_what_is_allowed(
    arguments: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(arguments, {})
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_after_two_dashes_nothing_is_an_option() -> None:
    parsed = parse(('post', '--ttl', '60', '--', '-q', '--', '-1', '--text'), {})
    assert (parsed.queue, parsed.bodies, parsed.text) == ('-q', ['--', '-1', '--text'], False)
    assert parse(('redrive', '--', '-q'), {}).queue == '-q'
    assert parse(('queue', 'delete', '--yes', '--', '-q', '-r'), {}).names == ['-q', '-r']


def test_neither_the_server_nor_gevent_is_imported(shell: Shell) -> None:
    python, *rest = COMMAND
    finished = subprocess.run(
        [python, '-X', 'importtime', *rest, 'ping'],
        env=shell.env,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert finished.returncode == 0
    imported = {line.split('|')[-1].strip() for line in finished.stderr.splitlines()}
    assert 'zaqar_gevent.client' in imported
    for name in ('gevent', 'falcon', 'zaqar', 'oslo_config', 'zaqar_gevent.server', 'rich'):
        assert name not in imported


def test_a_server_may_be_started_by_its_command_as_well(tmp_path: pathlib.Path) -> None:
    command = [*COMMAND, 'serve', '--port', '0', '--state-path', str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert 'REST and WebSocket on http://' in process.stdout.readline()
        process.terminate()
    assert process.returncode == 0


@pytest.mark.parametrize('arguments', [('nonsense',), ('--port', '0', 'ping')])
def test_an_unknown_command_is_told_with_those_that_are_known(arguments: tuple[str, ...]) -> None:
    finished = subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=SECONDS
    )
    assert finished.returncode == 2
    last = finished.stderr.splitlines()[-1]
    assert arguments[-1] in last
    assert 'consume' in last


@pytest.mark.parametrize('transport', ['auto', 'rest'])
def test_tail_says_that_the_server_does_not_know_the_marker(shell: Shell, transport: str) -> None:
    shell.records('post', 'orders', '1', '2')
    options = ('--marker', 'nonsense', '--limit', '2', '--transport', transport)
    ended = shell.run('tail', 'orders', *options)
    assert [json.loads(line)['body'] for line in ended.stdout.splitlines()] == [1, 2]
    assert 'zaqar-gevent: The server does not know the marker; orders begins anew.' in ended.stderr
