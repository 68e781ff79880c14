"""`zaqar-gevent consume`: a command run for each message."""

from __future__ import annotations

import json
import pathlib
import signal

import pytest

from tests.client.commands import SECONDS, Shell
from tests.client.waiting import wait_until
from tests.stopwatch import Stopwatch


def total(shell: Shell) -> int:
    [counted] = shell.records('stats', 'orders')
    count: int = counted['total']
    return count


def free(shell: Shell) -> int:
    [counted] = shell.records('stats', 'orders')
    count: int = counted['free']
    return count


@pytest.mark.parametrize('transport', ['websocket', 'rest'])
def test_each_message_is_given_to_the_command_and_deleted(shell: Shell, transport: str) -> None:
    posted = shell.records('post', 'orders', '{"text": "é"}', 'plain', '3')
    options = ('--limit', '3', '--transport', transport)
    finished = shell.run('consume', 'orders', '--exec', 'cat', *options)
    assert (finished.returncode, finished.stderr) == (0, '')
    messages = [json.loads(line) for line in finished.stdout.splitlines()]
    assert [message['id'] for message in messages] == [message['id'] for message in posted]
    assert [message['body'] for message in messages] == [{'text': 'é'}, 'plain', 3]
    assert total(shell) == 0


def test_the_body_alone_may_be_given(shell: Shell) -> None:
    shell.records('post', 'orders', '{"text": "é"}', 'plain')
    finished = shell.run('consume', 'orders', '--body', '--exec', 'cat; echo .', '--limit', '2')
    assert finished.stdout == '{"text": "é"}\n.\nplain.\n'


def test_the_command_is_told_which_message_it_is(shell: Shell) -> None:
    [posted] = shell.records('post', 'orders', '1')
    told = 'echo $ZAQAR_QUEUE $ZAQAR_MESSAGE_ID'
    finished = shell.run('consume', 'orders', '--exec', told, '--limit', '1')
    assert finished.stdout == f'orders {posted["id"]}\n'


def test_a_command_that_does_not_read_its_input_is_no_failure(shell: Shell) -> None:
    shell.records('post', 'orders', given='x' * 200_000)
    finished = shell.run('consume', 'orders', '--exec', 'true', '--limit', '1')
    assert (finished.returncode, finished.stderr) == (0, '')
    assert total(shell) == 0


@pytest.mark.parametrize('transport', ['websocket', 'rest'])
def test_a_message_whose_command_fails_is_given_back(
    shell: Shell, tmp_path: pathlib.Path, transport: str
) -> None:
    """And comes again, here for a command that fails the first time."""
    [posted] = shell.records('post', 'orders', '1')
    command = f'test -e {tmp_path}/tried || {{ touch {tmp_path}/tried; exit 7; }}'
    options = ('--limit', '2', '--pause', '0.1', '--transport', transport)
    finished = shell.run('consume', 'orders', '--exec', command, *options)
    assert finished.returncode == 1
    [line] = finished.stderr.splitlines()
    assert posted['id'] in line
    assert 'exit status 7' in line
    assert total(shell) == 0


def test_results_may_be_had_as_json(shell: Shell) -> None:
    posted = shell.records('post', 'orders', '1', '2')
    finished = shell.run(
        *('consume', 'orders', '--exec', "echo said; grep -q 'body.: 1,'", '--limit', '2'),
        *('--json', '--pause', '0'),
    )
    results = [json.loads(line) for line in finished.stdout.splitlines()]
    assert {result['id'] for result in results} <= {message['id'] for message in posted}
    assert [result['status'] for result in results] == [0, 1]
    assert finished.stderr.count('said\n') == 2
    assert finished.returncode == 1


def test_commands_run_side_by_side(shell: Shell, tmp_path: pathlib.Path) -> None:
    """Each of two waits for the other to have begun."""
    shell.records('post', 'orders', '1', '2')
    command = (
        f'touch {tmp_path}/$ZAQAR_MESSAGE_ID; '
        f'until [ $(ls {tmp_path} | wc -l) = 2 ]; do sleep 0.05; done'
    )
    finished = shell.run('consume', 'orders', '--exec', command, '--jobs', '2', '--limit', '2')
    assert (finished.returncode, finished.stderr) == (0, '')
    assert total(shell) == 0


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_is_ended_and_its_message_given_back(
    shell: Shell, tmp_path: pathlib.Path, number: int
) -> None:
    shell.records('post', 'orders', '1', '2')
    command = f'echo $$ > {tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid; sleep 60; true'
    with shell.start('consume', 'orders', '--exec', command) as consuming:
        wait_until((tmp_path / 'pid').exists, SECONDS, 'the command runs')
        watch = Stopwatch(consuming.pid)
        consuming.send_signal(number)
        _, errors = consuming.communicate(timeout=SECONDS)
    assert (consuming.returncode, errors) == (128 + number, '')
    assert watch.seconds() < 30
    pid = (tmp_path / 'pid').read_text().strip()
    assert not pathlib.Path(f'/proc/{pid}').exists()
    assert free(shell) == 2


def test_a_command_that_will_not_end_is_killed(shell: Shell, tmp_path: pathlib.Path) -> None:
    shell.records('post', 'orders', '1')
    command = f"trap '' TERM; touch {tmp_path}/runs; while :; do sleep 1; done"
    with shell.start('consume', 'orders', '--exec', command) as consuming:
        wait_until((tmp_path / 'runs').exists, SECONDS, 'the command runs')
        consuming.send_signal(signal.SIGTERM)
        consuming.communicate(timeout=SECONDS)
    assert consuming.returncode == 128 + signal.SIGTERM
    assert free(shell) == 1


def test_a_null_body_is_given_to_the_command(shell: Shell) -> None:
    shell.records('post', 'orders', 'null', '1')
    finished = shell.run('consume', 'orders', '--exec', 'cat', '--limit', '2')
    records = [json.loads(line) for line in finished.stdout.splitlines()]
    assert [record['body'] for record in records] == [None, 1]
    shell.records('post', 'orders', 'null')
    alone = shell.run('consume', 'orders', '--exec', 'cat', '--limit', '1', '--body')
    assert alone.stdout == 'null\n'


def test_a_failing_command_is_tried_again_and_then_the_message_is_a_dead_letter(
    shell: Shell, tmp_path: pathlib.Path
) -> None:
    """The first message succeeds at its second attempt, the second never."""
    first, second = shell.records('post', 'orders', '"good"', '["bad"]')
    command = (
        f'echo $ZAQAR_ATTEMPT >> {tmp_path}/$ZAQAR_MESSAGE_ID; '
        f'test $ZAQAR_MESSAGE_ID = {first["id"]} && test $ZAQAR_ATTEMPT = 2'
    )
    finished = shell.run(
        *('consume', 'orders', '--exec', command, '--limit', '2', '--json'),
        *('--attempts', '3', '--backoff', '0.1', '--dead-letter-queue', 'dead'),
    )
    assert finished.returncode == 1
    results = [json.loads(line) for line in finished.stdout.splitlines()]
    assert [(result['status'], result['attempts']) for result in results] == [(0, 2), (1, 3)]
    assert (tmp_path / second['id']).read_text().split() == ['1', '2', '3']
    assert 'attempt 1 of 3 failed (exit status 1); the next is in 0.1 s' in finished.stderr
    assert 'attempt 2 of 3 failed (exit status 1); the next is in 0.2 s' in finished.stderr
    assert f'{second["id"]}: moved to dead after 3 attempts' in finished.stderr
    assert [one['body'] for one in shell.records('list', 'dead')] == [['bad']]
    assert shell.records('list', 'orders') == []


@pytest.mark.parametrize(
    ('command', 'status'),
    [
        ('/nowhere/at-all', 127),
        ('/dev/null', 126),
        # Commands that run for other messages are ended.
        ('read body; test $body = 1 && exit 127; sleep 60', 127),
    ],
)
def test_a_command_that_cannot_be_run_stops_the_worker_and_costs_no_attempts(
    shell: Shell, command: str, status: int
) -> None:
    shell.records('post', 'orders', '1', '2')
    options = ('--attempts', '3', '--backoff', '600', '--dead-letter-queue', 'dead', '--jobs', '2')
    finished = shell.run('consume', 'orders', '--body', '--exec', command, *options)
    assert finished.returncode == 1
    assert f'the command cannot be run (exit status {status}): {command}' in finished.stderr
    assert 'the worker stops' in finished.stderr
    assert 'attempt' not in finished.stderr
    assert free(shell) == 2
    assert [one['name'] for one in shell.records('list')] == ['orders']


def test_an_interruption_does_not_wait_for_the_next_attempt(shell: Shell) -> None:
    shell.records('post', 'orders', '1')
    options = ('--attempts', '2', '--backoff', '600', '--dead-letter-queue', 'dead')
    with shell.start('consume', 'orders', '--exec', 'false', *options) as consuming:
        assert consuming.stderr is not None
        assert 'the next is in 600 s' in consuming.stderr.readline()
        consuming.send_signal(signal.SIGTERM)
        consuming.communicate(timeout=SECONDS)
    assert consuming.returncode == 128 + signal.SIGTERM
    assert free(shell) == 1


def test_a_message_that_cannot_be_moved_is_given_back(shell: Shell) -> None:
    shell.records('post', 'orders', '"longer than the other queue takes"')
    shell.records('queue', 'create', 'dead', '--max-post-size', '10')
    options = ('--limit', '1', '--dead-letter-queue', 'dead')
    finished = shell.run('consume', 'orders', '--exec', 'false', *options)
    assert finished.returncode == 1
    assert free(shell) == 1


def test_a_queue_is_not_its_own_dead_letter_queue(shell: Shell) -> None:
    status, told = shell.failure(
        'consume', 'orders', '--exec', 'false', '--dead-letter-queue', 'orders'
    )
    assert (status, 'another queue' in told) == (2, True)


def test_the_command_is_told_the_attributes(shell: Shell) -> None:
    given = ('--attribute', 'type=order', '--attribute', 'tenant.id-1=a b=c')
    shell.records('post', 'orders', '1', *given)
    told = 'echo $ZAQAR_ATTRIBUTE_TYPE,$ZAQAR_ATTRIBUTE_TENANT_ID_1; cat'
    finished = shell.run('consume', 'orders', '--exec', told, '--limit', '1')
    first, message = finished.stdout.splitlines()
    assert first == 'order,a b=c'
    assert json.loads(message)['attributes'] == {'type': 'order', 'tenant.id-1': 'a b=c'}


def test_a_dead_letter_keeps_its_attributes(shell: Shell) -> None:
    shell.records('post', 'orders', '1', '--attribute', 'type=order')
    shell.records('queue', 'create', 'failed')
    options = ('--dead-letter-queue', 'failed', '--limit', '1')
    assert shell.run('consume', 'orders', '--exec', 'false', *options).returncode == 1
    [dead] = shell.records('list', 'failed')
    assert (dead['body'], dead['attributes']) == (1, {'type': 'order'})
    assert 'dead_letter' not in dead


def test_a_dead_letter_says_where_it_is_from_if_the_queue_names_the_same_one(shell: Shell) -> None:
    shell.records('queue', 'create', 'failed')
    shell.records('queue', 'create', 'orders', '--dead-letter-queue', 'failed')
    [posted] = shell.records('post', 'orders', '1', '--ttl', '600')
    options = ('--dead-letter-queue', 'failed', '--limit', '1')
    finished = shell.run('consume', 'orders', '--exec', 'exit 3', *options)
    assert finished.returncode == 1
    assert f'{posted["id"]}: moved to failed after 1 attempt' in finished.stderr
    [dead] = shell.records('list', 'failed')
    facts = dead['dead_letter']
    assert (facts['queue'], facts['message_id'], facts['ttl']) == ('orders', posted['id'], 600)
    assert facts['reason'] == 'The command failed (exit status 3) after 1 attempt.'
    assert shell.records('list', 'orders') == []
