"""`zaqar-gevent check`: what is damaged in the store is found, and what is sound is called so."""

from __future__ import annotations

import json
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
import requests
from oslo_config import cfg

from tests.callers import TRANSPORTS, Identity, RestCaller, connect
from tests.damage import destroy, leaves, page_of
from tests.fork_server import LOCAL, run_forked
from tests.functional.test_authentication import POLICY, IdentityService, configuration
from tests.redis_process import RedisProcess
from tests.server_process import ServerProcess
from zaqar_gevent.unknown_options import find_unknown_options

ROOT = pathlib.Path(__file__).parents[2]

COUNT = 300
HURT = 100
PAGE = 20


def check(*options: object) -> subprocess.CompletedProcess[str]:
    return run_forked('check', *map(str, options), kind=LOCAL)


def findings(*options: object) -> list[dict[str, str]]:
    output = check('--json', *options).stdout
    return [json.loads(line) for line in output.splitlines()]


def post(caller: RestCaller, queue: str, count: int = COUNT) -> None:
    bodies = [f'{queue}-{number:04}' + 'x' * 50 for number in range(count)]
    for start in range(0, count, PAGE):
        messages = [{'body': body, 'ttl': 3600} for body in bodies[start : start + PAGE]]
        answer = caller.call('message_post', queue_name=queue, messages=messages)
        assert answer.status == 201


@pytest.fixture(scope='module')
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, Identity]:
    """The state path of a server that has stopped; its queues `sound` and `hurt` are full."""
    state = tmp_path_factory.mktemp('check')
    with ServerProcess(state) as server:
        caller = RestCaller(server.url)
        for queue in ('sound', 'hurt', 'other'):
            post(caller, queue)
        caller.close()
        assert server.stop() == 0
    return state, caller.identity


@pytest.fixture
def damaged(
    sound: tuple[pathlib.Path, Identity], tmp_path: pathlib.Path
) -> tuple[pathlib.Path, Identity]:
    """The same, but one page of `hurt` is damaged."""
    state = tmp_path / 'state'
    shutil.copytree(sound[0], state)
    file = state / 'zaqar.sqlite'
    destroy(file, page_of(file, 'messages', f'hurt-{HURT:04}'))
    return state, sound[1]


def test_a_sound_store_is_called_sound(sound: tuple[pathlib.Path, Identity]) -> None:
    finished = check('--state-path', sound[0])
    file = sound[0] / 'zaqar.sqlite'
    assert finished.stdout.splitlines() == [
        'sound: configuration: no file was given, and none is in the standard places: every '
        'option has its default',
        f'sound: store {file}: {3 * COUNT} messages in 3 queues',
    ]
    assert (finished.returncode, finished.stderr) == (0, '')


def test_a_damaged_page_is_found_and_its_queue_named(
    damaged: tuple[pathlib.Path, Identity],
) -> None:
    state, identity = damaged
    finished = check('--state-path', state)
    assert finished.returncode == 1
    assert finished.stderr == ''
    assert ': table messages: database disk image is malformed\n' in finished.stdout
    assert ': index ' not in finished.stdout
    [line] = [line for line in finished.stdout.splitlines() if ': queue ' in line]
    assert f"queue 'hurt' of project '{identity.project_id}': " in line
    unreadable = int(line.split(': ')[-1].split()[0])
    assert 10 < unreadable < 60
    assert f'{unreadable} of {COUNT} messages cannot be read' in line


def test_a_damaged_index_is_found(
    sound: tuple[pathlib.Path, Identity], tmp_path: pathlib.Path
) -> None:
    shutil.copytree(sound[0], tmp_path / 'state')
    file = tmp_path / 'state' / 'zaqar.sqlite'
    destroy(file, leaves(file, 'messages_expiry')[1])
    found = findings('--state-path', file.parent)
    assert found[1]['text'] == 'index messages_expiry: database disk image is malformed'
    assert not any('table ' in each['text'] for each in found)
    assert {each['verdict'] for each in found[1:]} == {'damaged'}


def test_a_body_that_is_garbled_is_found(
    sound: tuple[pathlib.Path, Identity], tmp_path: pathlib.Path
) -> None:
    shutil.copytree(sound[0], tmp_path / 'state')
    file = tmp_path / 'state' / 'zaqar.sqlite'
    content = file.read_bytes()
    at = content.index(b'"hurt-0100')
    file.write_bytes(content[:at] + b'\x00' + content[at + 1 :])
    [_, found] = findings('--state-path', file.parent)
    assert found['verdict'] == 'damaged'
    assert found['text'].endswith(f'1 of {COUNT} messages cannot be read')


def test_the_file_as_a_whole_may_be_damaged(
    sound: tuple[pathlib.Path, Identity], tmp_path: pathlib.Path
) -> None:
    shutil.copytree(sound[0], tmp_path / 'state')
    destroy(tmp_path / 'state' / 'zaqar.sqlite', 1)
    finished = check('--state-path', tmp_path / 'state')
    assert finished.returncode == 1
    assert 'not a database' in finished.stdout


@pytest.mark.parametrize(
    ('options', 'status', 'told'),
    [
        (['--state-path', '/nowhere'], 3, 'does not exist'),
        (['--state-path', ''], 2, 'give a directory'),
        (['--config-file', '/nowhere.conf'], 3, '/nowhere.conf'),
        (['--colour'], 2, '--colour'),
    ],
)
def test_what_cannot_be_checked_is_told(options: list[str], status: int, told: str) -> None:
    finished = check(*options)
    assert finished.returncode == status
    assert told in finished.stdout + finished.stderr


def test_misspelt_options_are_found(
    sound: tuple[pathlib.Path, Identity], tmp_path: pathlib.Path
) -> None:
    config = tmp_path / 'zaqar.conf'
    config.write_text(
        '[DEFAULT]\nauth_stratgy =\ndebug = false\n'
        '[drivers:transport:gevnt]\nmax_connections = 100\n'
        '[drivers:transport:gevent]\nmax-connections = 100\n'
        '[transport]\nmax_message_post_size = 262144\n'
        '[oslo_messaging_notifications]\ndriver = noop\n'
    )
    finished = check('--state-path', sound[0], '--config-file', config)
    assert finished.returncode == 4
    ignored = [line for line in finished.stdout.splitlines() if line.startswith('ignored: ')]
    assert [line.removeprefix(f'ignored: configuration: {config}: ') for line in ignored] == [
        '[DEFAULT] has no option auth_stratgy; it has no effect. Did you mean auth_strategy?',
        '[drivers:transport:gevnt] is not a group of options, and has no effect. '
        'Did you mean [drivers:transport:gevent]?',
        '[transport] has no option max_message_post_size; it has no effect. '
        'Did you mean max_messages_post_size?',
        '[oslo_messaging_notifications] is not a group of options, and has no effect',
    ]


@pytest.mark.parametrize(
    ('lines', 'told'),
    [
        ('[DEFAULT]\nauth_strategy = keystne', "auth_strategy is 'keystne'"),
        ('[cors]\nallowed_origin = localhost:5173', "'localhost:5173' is not an origin"),
        ('[cors]\nallowed_origin = http://localhost:5173/', 'http://localhost:5173/'),
        ('[drivers:transport:gevent]\nallowed_hosts = http://a', 'allowed_hosts'),
    ],
)
def test_values_with_which_no_server_starts_are_found(
    lines: str, told: str, tmp_path: pathlib.Path
) -> None:
    (tmp_path / 'zaqar.conf').write_text(f'{lines}\n')
    found = findings('--state-path', tmp_path, '--config-file', tmp_path / 'zaqar.conf')
    [refused] = [one for one in found if 'does not start' in one['text']]
    assert refused['verdict'] == 'unchecked'
    assert told in refused['text']


def test_the_sample_configuration_has_no_unknown_options(tmp_path: pathlib.Path) -> None:
    sample = (ROOT / 'etc' / 'zaqar-gevent.conf.sample').read_text(encoding='utf-8')
    config = tmp_path / 'zaqar.conf'
    config.write_text(re.sub(r'^#([a-z_]+ = )', r'\1', sample, flags=re.MULTILINE))
    conf = cfg.ConfigOpts()
    conf(args=[], default_config_files=[str(config)], default_config_dirs=[])
    assert len(config.read_text().splitlines()) > 1000
    assert list(find_unknown_options(conf)) == []


def test_nothing_is_created(tmp_path: pathlib.Path) -> None:
    check('--state-path', tmp_path / 'new')
    assert not (tmp_path / 'new').exists()


def test_the_help_says_what_the_statuses_mean() -> None:
    told = check('--help').stdout
    assert 'exit status:' in told
    assert '--state-path' in told
    assert (
        'check'
        in subprocess.run(
            [sys.executable, '-m', 'zaqar_gevent.cmd', '--help'],
            capture_output=True,
            text=True,
            timeout=60,
        ).stdout
    )


def test_a_running_server_is_not_disturbed(tmp_path: pathlib.Path) -> None:
    with ServerProcess(tmp_path) as server:
        caller = RestCaller(server.url)
        post(caller, 'q', 40)
        finished = check('--state-path', tmp_path)
        assert (finished.returncode, finished.stdout[:6]) == (0, 'sound:')
        assert ': 40 messages in 1 queues' in finished.stdout
        post(caller, 'q', 40)
        server.kill()
    # What a killed server left in its journal is looked at too.
    finished = check('--state-path', tmp_path)
    assert ': 80 messages in 1 queues' in finished.stdout


@pytest.mark.parametrize('place', [0.0, 0.2, 0.5, 0.8])
def test_a_changed_byte_in_the_journal_is_found(tmp_path: pathlib.Path, place: float) -> None:
    with ServerProcess(tmp_path) as server:
        caller = RestCaller(server.url)
        assert check('--state-path', tmp_path).returncode == 0
        # A server that has nothing to do for ten seconds empties its journal.
        for number in range(20):
            assert caller.call('message_post', queue_name='q', messages=[{'body': number}]).status
        server.kill()
    assert check('--state-path', tmp_path).returncode == 0
    journal = tmp_path / 'zaqar.sqlite-wal'
    content = bytearray(journal.read_bytes())
    content[32 + int(place * len(content)) + 1000] ^= 0x10
    journal.write_bytes(content)
    found = findings('--state-path', tmp_path)
    assert 'the journal' in found[1]['text']
    assert found[1]['verdict'] == 'damaged'


def test_what_follows_a_changed_byte_is_kept_by_a_stop_in_order(tmp_path: pathlib.Path) -> None:
    with ServerProcess(tmp_path) as server:
        caller = RestCaller(server.url)
        post(caller, 'q', 40)
        journal = tmp_path / 'zaqar.sqlite-wal'
        with journal.open('r+b') as file:
            file.seek(file.read().index(b'"q-0000x'))
            file.write(b'"Q')
        finished = check('--state-path', tmp_path)
        assert finished.returncode == 1
        assert 'the journal' in finished.stdout
        post(caller, 'q', 20)
        assert server.stop() == 0
    assert ': 60 messages in 1 queues' in check('--state-path', tmp_path).stdout


def test_a_transaction_that_was_being_written_is_no_damage(tmp_path: pathlib.Path) -> None:
    with ServerProcess(tmp_path) as server:
        caller = RestCaller(server.url)
        for number in range(5):
            assert caller.call('message_post', queue_name='q', messages=[{'body': number}]).status
        server.kill()
    journal = tmp_path / 'zaqar.sqlite-wal'
    content = bytearray(journal.read_bytes())
    content[-1000] ^= 0x10
    journal.write_bytes(content)
    finished = check('--state-path', tmp_path)
    assert (finished.returncode, ': 4 messages in 1 queues' in finished.stdout) == (0, True)


def test_the_configuration_says_which_files(
    sound: tuple[pathlib.Path, Identity], tmp_path: pathlib.Path
) -> None:
    config = tmp_path / 'zaqar.conf'
    config.write_text(f"""
[drivers]
message_store = sqlite
management_store = sqlite
[drivers:message_store:sqlite]
uri = sqlite:///{sound[0]}/zaqar.sqlite
[drivers:management_store:sqlite]
uri = sqlite:///{tmp_path}/missing.sqlite
""")
    found = findings('--config-file', config)
    assert found[0] == {
        'verdict': 'sound',
        'subject': 'configuration',
        'text': f'read from {config}',
    }
    assert sorted(each['verdict'] for each in found[1:]) == ['sound', 'unchecked']
    assert check('--config-file', config).returncode == 3


@pytest.mark.parametrize('transport', TRANSPORTS)
def test_of_a_damaged_store_all_other_queues_are_served(
    damaged: tuple[pathlib.Path, Identity], transport: str
) -> None:
    state, identity = damaged
    with ServerProcess(state) as server:
        caller = connect(transport, server.url, server.websocket_url, identity)
        refused = []
        for _ in range(COUNT // PAGE):
            answer = caller.call('claim_create', queue_name='hurt', limit=PAGE)
            if answer.status != 201:
                refused.append(answer)
            posted = caller.call('message_post', queue_name='sound', messages=[{'body': 1}])
            assert posted.status == 201
        assert refused
        assert {answer.status for answer in refused} == {503}
        assert all('zaqar-gevent check' in str(answer.body) for answer in refused)
        listed = caller.call('message_list', queue_name='other', echo=True, limit=PAGE)
        assert len(listed.body['messages']) == PAGE
        assert requests.get(f'{server.url}/healthcheck', timeout=60).status_code == 200
        assert caller.call('ping_node').status == 204
        caller.close()
        server.stop()
    told = [line for line in server.output if ' is damaged: ' in line]
    assert len(told) == 1
    assert "'hurt'" in told[0]


def test_files_in_the_standard_places_are_read_and_named(
    sound: tuple[pathlib.Path, Identity], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / '.zaqar' / 'zaqar.conf'
    file.parent.mkdir()
    file.write_text('[drivers]\nmessage_store = redis\n')
    monkeypatch.setenv('HOME', str(tmp_path))
    [found, *_] = findings('--state-path', sound[0])
    assert found['text'] == f'read from {file}'


def test_stores_elsewhere_are_asked_whether_they_are_there(tmp_path: pathlib.Path) -> None:
    config = tmp_path / 'zaqar.conf'

    def configure(port: int) -> None:
        config.write_text(f"""
[drivers]
message_store = redis
management_store = redis
[drivers:message_store:redis]
uri = redis://:a-password@127.0.0.1:{port}?dbid=1
[drivers:management_store:redis]
uri = redis://:a-password@127.0.0.1:{port}/2
""")

    with RedisProcess(tmp_path) as redis:
        redis.client.config_set('requirepass', 'a-password')
        configure(redis.port)
        checked = check('--json', '--config-file', config)
        found = [json.loads(line) for line in checked.stdout.splitlines()]
        assert [each['verdict'] for each in found] == ['sound'] * 3
        assert checked.stderr.count('for database 2 add dbid=2') == 1
        assert 'a-password' not in checked.stdout + checked.stderr
        assert found[1]['text'] == f'redis://127.0.0.1:{redis.port}?dbid=1 answers'
        assert found[2]['subject'] == 'management_store redis'
        port = redis.port
    told = check('--config-file', config)
    assert told.returncode == 3
    assert f'127.0.0.1:{port}' in told.stdout
    assert 'a-password' not in told.stdout + told.stderr


def test_keystone_is_asked_for_a_token(
    sound: tuple[pathlib.Path, Identity], tmp_path: pathlib.Path
) -> None:
    policy, config = tmp_path / 'policy.yaml', tmp_path / 'zaqar.conf'
    policy.write_text(POLICY)
    with IdentityService() as service:
        config.write_text(configuration(service, policy))
        options = ('--config-file', config, '--state-path', sound[0])
        [found] = [one for one in findings(*options) if one['subject'] == 'keystone']
        assert found['verdict'] == 'sound'
        assert found['text'].endswith(' gives the server a token')
    [found] = [one for one in findings(*options) if one['subject'] == 'keystone']
    assert found['verdict'] == 'unchecked'
    assert 'no token from Keystone by [keystone_authtoken]' in found['text']
    assert check(*options).returncode == 3
