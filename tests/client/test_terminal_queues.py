"""Queues, topics, subscriptions, pools and flavors by commands of the terminal."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator

import pytest

from tests.client.commands import Shell
from tests.server_process import ServerProcess


def test_a_queue_is_created_with_settings_shown_changed_and_deleted(shell: Shell) -> None:
    settings = ('--default-ttl', '600', '--max-claims', '3', '--dead-letter-queue', 'dead')
    shell.records('queue', 'create', 'dead')
    [created] = shell.records('queue', 'create', 'jobs', *settings, '--metadata', 'owner={"id": 1}')
    assert created == {'name': 'jobs', 'created': True}
    shell.records('post', 'jobs', '1', '2')
    [shown] = shell.records('queue', 'show', 'jobs')
    assert shown['messages']['total'] == 2
    expected = {
        '_default_message_ttl': 600,
        '_max_claim_count': 3,
        '_dead_letter_queue': 'dead',
        'owner': {'id': 1},
    }
    assert shown['metadata'].items() >= expected.items()
    changes = ('--default-delay', '5', '--unset', 'max-claims', '--unset', 'owner')
    [changed] = shell.records('queue', 'set', 'jobs', *changes)
    assert changed['metadata']['_default_message_delay'] == 5
    assert changed['metadata']['_max_claim_count'] is None
    assert 'owner' not in changed['metadata']
    assert shell.records('queue', 'list') == [{'name': 'dead'}, {'name': 'jobs'}]
    [listed] = shell.records('queue', 'list', '--details', '--name', 'job')
    assert listed['metadata'] == changed['metadata']
    assert shell.records('queue', 'list', '--name', 'other') == []
    assert shell.records('queue', 'delete', 'jobs') == [{'name': 'jobs', 'deleted': True}]
    assert shell.records('queue', 'list') == [{'name': 'dead'}]


@pytest.mark.parametrize('command', ['create', 'set'])
def test_a_missing_dead_letter_queue_is_warned_of(shell: Shell, command: str) -> None:
    if command == 'set':
        shell.records('queue', 'create', 'jobs')
    options = ('--max-claims', '3', '--dead-letter-queue', 'failed')
    finished = shell.run('queue', command, 'jobs', *options)
    assert finished.returncode == 0
    [warning] = finished.stderr.splitlines()
    assert 'create it: zaqar-gevent queue create failed' in warning
    shell.records('queue', 'create', 'failed')
    shell.records('queue', 'set', 'jobs', *options)


def test_a_setting_without_effect_is_warned_of(shell: Shell) -> None:
    created = shell.run('queue', 'create', 'jobs', '--max-claims', '3')
    assert created.returncode == 0
    assert '--max-claims has no effect without --dead-letter-queue' in created.stderr
    changed = shell.run('queue', 'set', 'jobs', '--dead-letter-ttl', '60')
    [warning] = changed.stderr.splitlines()
    assert '--dead-letter-ttl has no effect without --dead-letter-queue' in warning
    shell.records('queue', 'create', 'dead')
    shell.records('queue', 'set', 'jobs', '--dead-letter-queue', 'dead')
    shell.records('queue', 'set', 'jobs', '--max-claims', '4')


def test_settings_are_unset_by_any_of_their_names(shell: Shell) -> None:
    metadata = ('--metadata', 'default_delay=1')
    shell.records('queue', 'create', 'jobs', '--default-ttl', '600', *metadata)
    for name in ('default_ttl', '--default-ttl', '_default_message_ttl', 'retry-delay'):
        [changed] = shell.records('queue', 'set', 'jobs', f'--unset={name}')
        assert changed['metadata']['_default_message_ttl'] == 3600
    assert changed['metadata']['default_delay'] == 1
    [changed] = shell.records('queue', 'set', 'jobs', '--unset', 'default_delay')
    assert 'default_delay' not in changed['metadata']
    status, told = shell.failure('queue', 'set', 'jobs', '--unset', 'nonsense')
    assert status == 1
    assert 'there is no setting or key nonsense of jobs. Settings are max-post-size, ' in told


def test_a_name_may_start_with_a_dash(shell: Shell) -> None:
    shell.records('queue', 'create', '--', '-jobs')
    shell.records('post', '--', '-jobs', '-1')
    assert [one['body'] for one in shell.records('list', '--', '-jobs')] == [-1]
    assert shell.records('queue', 'delete', '--', '-jobs') == [{'name': '-jobs', 'deleted': True}]


def test_ids_and_names_are_not_broken_in_tables(shell: Shell) -> None:
    name = 'n' * 64
    shell.records('queue', 'create', name)
    [made] = shell.records('subscription', 'create', name, 'http://127.0.0.1:1/a/long/path')
    narrow = Shell(shell.env['ZAQAR_URL'], shell.env['ZAQAR_PROJECT'], COLUMNS='40')
    for command, whole in (
        (('subscription', 'list', name), made['id']),
        (('queue', 'list', '--details'), name),
        (('stats',), name),
    ):
        assert f' {whole} ' in narrow.run(*command, '--format', 'table').stdout


def test_the_delay_of_retries_has_parts(shell: Shell) -> None:
    shell.records('queue', 'create', 'jobs', '--retry-delay', '0.5,3,60')
    [shown] = shell.records('queue', 'show', 'jobs')
    assert shown['metadata']['_retry_delay'] == {'initial': 0.5, 'factor': 3, 'max': 60}
    [changed] = shell.records('queue', 'set', 'jobs', '--retry-delay', '2')
    assert changed['metadata']['_retry_delay'] == {'initial': 2}
    status, told = shell.failure('queue', 'set', 'jobs', '--retry-delay', '2,99')
    assert (status, '_retry_delay' in told) == (1, True)
    assert shell.run('queue', 'set', 'jobs', '--retry-delay', 'soon').returncode == 2


def test_a_reserved_key_that_means_nothing_is_refused(shell: Shell) -> None:
    status, told = shell.failure('queue', 'create', 'jobs', '--metadata', '_max_claims=3')
    assert status == 2
    assert 'did you mean _max_claim_count?' in told
    assert shell.records('queue', 'list') == []


def test_the_policy_of_notifications_is_json(shell: Shell) -> None:
    policy = '{"retries_with_no_delay": 1}'
    shell.records('topic', 'create', 'news', '--retry-policy', policy)
    [shown] = shell.records('topic', 'show', 'news')
    assert shown['metadata']['_retry_policy'] == {'retries_with_no_delay': 1}


def test_a_switch_is_a_setting_as_well(shell: Shell) -> None:
    shell.records('queue', 'create', 'jobs', '--encrypt')
    [changed] = shell.records('queue', 'set', 'jobs', '--no-encrypt')
    assert changed['metadata']['_enable_encrypt_messages'] is False


def test_settings_of_a_queue_that_exists_are_not_lost_silently(shell: Shell) -> None:
    shell.records('queue', 'create', 'jobs', '--default-ttl', '600')
    assert shell.records('queue', 'create', 'jobs') == [{'name': 'jobs', 'created': False}]
    same = shell.records('queue', 'create', 'jobs', '--default-ttl', '600')
    assert same == [{'name': 'jobs', 'created': False}]
    status, told = shell.failure('queue', 'create', 'jobs', '--default-ttl', '700')
    assert status == 1
    assert 'queue set' in told
    [shown] = shell.records('queue', 'show', 'jobs')
    assert shown['metadata']['_default_message_ttl'] == 600


def test_what_does_not_exist_is_told_and_not_created(shell: Shell) -> None:
    # One whose name is longer is another one.
    shell.records('post', 'nothing-else', '1')
    commands = (
        *(('list',), ('tail',), ('stats',), ('tail', '--transport', 'rest'), ('claim',)),
        ('subscription', 'list'),
        *(('queue', 'show'), ('queue', 'delete'), ('queue', 'purge'), ('topic', 'show')),
        *(('queue', 'set', '--default-ttl', '60'), ('topic', 'set', '--unset', 'default-ttl')),
    )
    for command in commands:
        status, told = shell.failure(*command, 'nothing')
        assert status == 1
        kind = 'topic' if command[0] == 'topic' else 'queue'
        assert f'there is no {kind} nothing in project {shell.env["ZAQAR_PROJECT"]}' in told
    assert shell.records('queue', 'list') == [{'name': 'nothing-else'}]
    assert shell.records('topic', 'list') == []


def test_ids_that_do_not_exist_are_told_and_nothing_is_deleted(
    shell: Shell, pooled: Shell, tmp_path: pathlib.Path
) -> None:
    shell.records('queue', 'create', 'jobs')
    [made] = shell.records('subscription', 'create', 'jobs', 'http://127.0.0.1:1/')
    for command in (
        ('subscription', 'delete', 'jobs', made['id'], 'nothing'),
        ('claim', 'jobs', '--release', 'nothing'),
    ):
        status, told = shell.failure(*command)
        assert (status, 'nothing does not exist' in told) == (1, True)
    assert len(shell.records('subscription', 'list', 'jobs')) == 1
    for kind in ('pool', 'flavor'):
        status, told = pooled.failure(kind, 'delete', 'nothing')
        assert (status, 'nothing does not exist' in told) == (1, True)


def test_an_empty_queue_is_no_error(shell: Shell) -> None:
    shell.records('queue', 'create', 'jobs')
    assert shell.records('list', 'jobs') == []


def test_a_worker_waits_for_a_queue_that_does_not_exist_yet(shell: Shell) -> None:
    with shell.start('consume', 'jobs', '--exec', 'cat', '--limit', '1') as worker:
        assert worker.stderr is not None
        assert 'there is no queue jobs yet' in worker.stderr.readline()
        shell.records('post', 'jobs', '1')
        output, _ = worker.communicate(timeout=60)
    assert '"body": 1' in output
    assert worker.returncode == 0


def test_a_queue_is_purged_and_keeps_its_subscriptions_unless_told(shell: Shell) -> None:
    shell.records('post', 'jobs', '1', '2', '3')
    shell.records('claim', 'jobs', '--limit', '1')
    shell.records('subscription', 'create', 'jobs', 'http://127.0.0.1:1/')
    shell.records('queue', 'purge', 'jobs')
    assert [one['body'] for one in shell.records('list', 'jobs')] == [1]
    assert len(shell.records('subscription', 'list', 'jobs')) == 1
    shell.records('queue', 'purge', 'jobs', '--subscriptions')
    assert shell.records('subscription', 'list', 'jobs') == []


@pytest.mark.parametrize(('answer', 'deleted'), [('y', True), ('n', False), ('', False)])
def test_deleting_asks_on_a_terminal(shell: Shell, answer: str, deleted: bool) -> None:
    shell.records('post', 'jobs', '1', '2')
    terminal = shell.on_terminal('queue', 'delete', 'jobs')
    shown = terminal.read_until(lambda shown: '[y/N]' in shown)
    assert 'Delete jobs with 2 messages' in shown
    assert 'cannot be undone' in shown
    terminal.type(f'{answer}\n')
    assert terminal.finish() == (0 if deleted else 1)
    assert ('nothing was deleted' in terminal.shown) is not deleted
    assert shell.records('queue', 'list') == ([] if deleted else [{'name': 'jobs'}])


def test_yes_does_not_ask(shell: Shell) -> None:
    shell.records('post', 'jobs', '1')
    for verb in ('purge', 'delete'):
        terminal = shell.on_terminal('queue', verb, 'jobs', '--yes')
        assert terminal.finish() == 0
        assert '[y/N]' not in terminal.shown


def test_topics_have_commands_of_their_own(shell: Shell) -> None:
    shell.records('topic', 'create', 'news', '--default-ttl', '120')
    [shown] = shell.records('topic', 'show', 'news')
    assert shown['metadata']['_default_message_ttl'] == 120
    assert shell.records('topic', 'list') == [{'name': 'news'}]
    assert shell.records('queue', 'list') == []
    [made] = shell.records('subscription', 'create', 'news', 'http://127.0.0.1:1/', '--topic')
    [listed] = shell.records('subscription', 'list', 'news', '--topic')
    assert listed['id'] == made['id']
    posted = shell.records('post', 'news', '--topic', '1', '2')
    assert len(posted) == 2
    for command in (('list',), ('tail', '--from-start', '--limit', '2')):
        messages = shell.records(*command, 'news', '--topic')
        assert [one['body'] for one in messages] == [1, 2]
    [counted] = shell.records('stats', '--topic')
    assert (counted['queue'], counted['total']) == ('news', 2)
    assert shell.records('list', '--topic') == [{'name': 'news'}]
    assert shell.records('queue', 'list') == []
    status, told = shell.failure('list', 'other', '--topic')
    assert (status, 'there is no topic other' in told) == (1, True)
    shell.records('topic', 'delete', 'news')
    assert shell.records('topic', 'list') == []


def test_subscriptions_are_created_shown_changed_and_ended(shell: Shell) -> None:
    uri = 'http://127.0.0.1:1/hook'
    shell.records('queue', 'create', 'jobs')
    [made] = shell.records(
        'subscription', 'create', 'jobs', uri, '--ttl', '600', '--option', 'tries=3'
    )
    [shown] = shell.records('subscription', 'show', 'jobs', made['id'])
    assert (shown['subscriber'], shown['ttl'], shown['options']) == (uri, 600, {'tries': 3})
    shell.records('subscription', 'set', 'jobs', made['id'], '--uri', f'{uri}/2', '--ttl', '900')
    [listed] = shell.records('subscription', 'list', 'jobs')
    assert (listed['subscriber'], listed['ttl']) == (f'{uri}/2', 900)
    status, told = shell.failure('subscription', 'set', 'jobs', made['id'])
    assert (status, '--ttl' in told) == (2, True)
    shell.records('subscription', 'delete', 'jobs', made['id'])
    assert shell.records('subscription', 'list', 'jobs') == []


def test_messages_are_got_by_their_ids(shell: Shell) -> None:
    ids = [one['id'] for one in shell.records('post', 'jobs', *map(str, range(30)))]
    got = shell.records('get', 'jobs', *reversed(ids))
    assert [one['body'] for one in got] == list(reversed(range(30)))
    finished = shell.run('get', 'jobs', ids[0], 'nonsense')
    assert finished.returncode == 1
    assert '"body": 0' in finished.stdout
    assert 'there is no message nonsense in jobs' in finished.stderr


def test_a_claim_is_given_back(shell: Shell) -> None:
    shell.records('post', 'jobs', '1', '2')
    [claimed, _] = shell.records('claim', 'jobs')
    assert shell.records('claim', 'jobs') == []
    [told] = shell.records('claim', 'jobs', '--release', claimed['claim_id'])
    assert told == {'claim_id': claimed['claim_id'], 'released': True}
    assert [one['body'] for one in shell.records('claim', 'jobs')] == [1, 2]
    [claimed, _] = shell.records('list', 'jobs')
    shell.records('claim', 'jobs', '--release', claimed['claim_id'], '--delay', '600')
    assert shell.records('claim', 'jobs') == []
    assert shell.records('list', 'jobs') == []
    assert len(shell.records('list', 'jobs', '--delayed')) == 2


def test_tables_are_for_people_and_may_be_had_in_a_pipe(shell: Shell) -> None:
    shell.records('queue', 'create', 'jobs', '--default-ttl', '600')
    table = shell.run('queue', 'show', 'jobs', '--format', 'table').stdout
    assert re.search(r'default-ttl +600s', table)
    assert 'queue' in shell.run('queue', 'list', '--details', '--format', 'table').stdout
    terminal = shell.on_terminal('queue', 'show', 'jobs', '--format', 'json')
    terminal.finish()
    assert '"_default_message_ttl": 600' in terminal.shown
    terminal = shell.on_terminal('queue', 'show', 'jobs')
    terminal.finish()
    assert re.search(r'default-ttl +600s', terminal.shown)


@pytest.fixture(scope='module')
def pooled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    path = tmp_path_factory.mktemp('pooled')
    config = '[DEFAULT]\nadmin_mode = true\npooling = true\n'
    with (
        ServerProcess(path, config=config) as server,
        Shell(server.url, 'demo', ZAQAR_ROLES='admin') as shell,
    ):
        yield shell


def test_pools_and_flavors_are_managed(pooled: Shell, tmp_path: pathlib.Path) -> None:
    uri = f'sqlite:///{tmp_path}/pool.sqlite'
    pooled.records('pool', 'create', 'fast', '--uri', uri)
    [listed] = pooled.records('pool', 'list')
    assert (listed['name'], listed['uri'], listed['weight']) == ('fast', uri, 100)
    pooled.records('pool', 'set', 'fast', '--weight', '7')
    [shown] = pooled.records('pool', 'show', 'fast')
    assert shown['weight'] == 7
    pooled.records('flavor', 'create', 'gold', '--pool', 'fast')
    [flavor] = pooled.records('flavor', 'list')
    assert (flavor['name'], flavor['pool_list']) == ('gold', ['fast'])
    assert 'fast' in pooled.run('flavor', 'show', 'gold', '--format', 'table').stdout
    pooled.records('queue', 'create', 'jobs', '--flavor', 'gold')
    pooled.records('flavor', 'delete', 'gold')
    status, told = pooled.failure('pool', 'show', 'none')
    assert (status, '404' in told) == (1, True)


def test_a_server_without_pools_says_what_it_needs(shell: Shell) -> None:
    for command in (('pool', 'list'), ('flavor', 'list'), ('pool', 'list', '--transport', 'rest')):
        status, told = shell.failure(*command)
        assert status == 1
        assert 'pooling = true' in told
        assert 'admin_mode = true' in told


@pytest.mark.parametrize(
    ('arguments', 'told'),
    [
        (('queue',), 'COMMAND'),
        (('queue', 'nonsense'), 'nonsense'),
        (('queue', 'create', 'x', '--metadata', 'no-value'), 'KEY=VALUE'),
        (('queue', 'create', 'x', '--default-ttl', 'soon'), 'soon'),
        (('pool', 'create', 'x'), '--uri'),
    ],
)
def test_wrong_arguments_are_told(shell: Shell, arguments: tuple[str, ...], told: str) -> None:
    finished = shell.run(*arguments)
    assert finished.returncode == 2
    assert told in finished.stderr.splitlines()[-1]
