"""What saves users time: bodies of other types, what is printed, errors that say what to do."""

from __future__ import annotations

import asyncio
import datetime
import decimal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.server_process import ServerProcess
from zaqar_gevent import testing
from zaqar_gevent.client import BadRequest, Client, Conflict, aio, cloud

pytest_plugins = ['zaqar_gevent.testing']


@pytest.fixture(params=['msgpack', 'json', 'rest'])
def options(request: pytest.FixtureRequest) -> dict[str, Any]:
    if request.param == 'rest':
        return {'transport': 'rest'}
    return {'transport': 'websocket', 'encoding': request.param}


def converted(value: object) -> object:
    if isinstance(value, decimal.Decimal | uuid.UUID | datetime.datetime):
        return str(value)
    raise TypeError(f'{type(value).__name__} is not for sale')


def test_bodies_of_other_types_are_converted(
    server: ServerProcess, options: dict[str, Any]
) -> None:
    sku, day = uuid.uuid4(), datetime.datetime(2026, 1, 2, 3, 4, 5)
    body = {'sku': sku, 'price': decimal.Decimal('1.10'), 'at': [day, (day,)], 'n': 1}
    with Client(server.url, project=uuid.uuid4().hex, default=converted, **options) as client:
        queue = client.queue('q')
        queue.post(body)
        [message] = queue.messages()
        text = str(day)
        assert message.body == {'sku': str(sku), 'price': '1.10', 'at': [text, [text]], 'n': 1}
        with pytest.raises(TypeError, match=r'complex is not for sale - at `\$.*body\.one\[1\]`'):
            queue.post({'one': [0, 1j]})


def test_a_body_that_cannot_be_written_says_where_and_what_to_do(
    server: ServerProcess, options: dict[str, Any]
) -> None:
    with (
        Client(server.url, project=uuid.uuid4().hex, **options) as client,
        pytest.raises(TypeError, match=r'datetime.*default=str.*body\.at\[0\]'),
    ):
        client.queue('q').post({'at': [datetime.datetime(2026, 1, 1)]})


def test_settings_of_a_queue_are_added_replaced_and_removed(
    server: ServerProcess, options: dict[str, Any]
) -> None:
    with Client(server.url, project=uuid.uuid4().hex, **options) as client:
        for queue in (client.queue('q'), client.topic('t')):
            made = queue.configure({'a/b~c': [1], 'none': None}, default_ttl=600)
            assert (made['_default_message_ttl'], made['a/b~c']) == (600, [1])
            changed = queue.configure(
                {'a/b~c': 2, '_default_message_ttl': None, 'missing': None, 'new': 'x'}
            )
            assert changed == queue.get_metadata()
            assert (changed['a/b~c'], changed['new']) == (2, 'x')
            assert changed['_default_message_ttl'] != 600
            assert 'missing' not in changed
            assert 'a/b~c' not in queue.configure({'a/b~c': None})
            assert queue.configure({})['new'] == 'x'


def test_settings_have_names_whether_the_queue_exists_or_not(
    server: ServerProcess, options: dict[str, Any]
) -> None:
    with Client(server.url, project=uuid.uuid4().hex, **options) as client:
        queue = client.queue('q')
        for number in (3, 4):
            made = queue.configure(max_claims=number, dead_letter_queue='dead', encrypt=False)
            assert made['_max_claim_count'] == number
            assert made['_dead_letter_queue'] == 'dead'
        changed = queue.configure(max_claims=None, retry_delay={'initial': 2})
        assert changed['_max_claim_count'] is None
        assert changed['_dead_letter_queue'] == 'dead'
        assert changed['_retry_delay'] == {'initial': 2}
        assert '_retry_delay' not in queue.configure(retry_delay=None, trace_context=None)
        with pytest.raises(TypeError, match=r"'max_claim'.*did you mean max_claims.*default_ttl, "):
            queue.configure(max_claim=3)
        with pytest.raises(ValueError, match=r'_max_claims.*did you mean _max_claim_count'):
            queue.configure({'_max_claims': 3})
        with pytest.raises(BadRequest, match=r'\$\.metadata\._max_claim_count'):
            queue.configure(max_claims='three')
        topic = client.topic('t')
        assert topic.configure(default_ttl=600)['_default_message_ttl'] == 600
        with pytest.raises(TypeError, match=r'A topic has no setting .max_claims.; there are'):
            topic.configure(max_claims=3)


def test_to_create_a_queue_that_exists_with_other_metadata_is_a_conflict(
    server: ServerProcess, options: dict[str, Any]
) -> None:
    with Client(server.url, project=uuid.uuid4().hex, **options) as client:
        for source in (client.queue('q'), client.topic('t')):
            metadata = {'_default_message_ttl': 600, 'owner': {'id': 1}}
            assert source.create(metadata)
            assert not source.create(metadata)
            assert not source.create({'owner': {'id': 1}, '_default_message_delay': 0})
            assert not source.create()
            with pytest.raises(Conflict, match=r'other values of _default_message_ttl, owner'):
                source.create({'_default_message_ttl': 700, 'owner': None})
            assert source.get_metadata()['_default_message_ttl'] == 600


def test_a_dict_is_no_json_patch(server: ServerProcess) -> None:
    with Client(server.url, project=uuid.uuid4().hex) as client:
        with pytest.raises(TypeError, match=r'JSON Patch.*configure'):
            client.queue('q').update({'a': 1})  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r'must be a dict.*max_claims=3'):
            client.queue('q').configure([])  # type: ignore[arg-type]


def test_the_client_for_asyncio_says_how_to_use_it(server: ServerProcess) -> None:
    with pytest.raises(RuntimeError, match='inside a coroutine'):
        aio.Client(server.url, project='demo')

    async def use() -> None:
        async with aio.Client(server.url, project=uuid.uuid4().hex) as client:
            for opening in (client.queue('q').claim(), client.queue('q').subscribe()):
                with pytest.raises(TypeError, match='async with'), opening:
                    pass

    asyncio.run(use())


@pytest.mark.parametrize('kind', [Client, aio.Client])
def test_without_a_project_a_client_says_so_at_once(kind: Any) -> None:
    async def make() -> None:
        with pytest.raises(ValueError, match=r"project='\.\.\.'"):
            kind('http://localhost:8888')

    asyncio.run(make())


def test_a_message_shows_the_beginning_of_its_body(server: ServerProcess) -> None:
    with Client(server.url, project=uuid.uuid4().hex) as client:
        queue = client.queue('orders')
        [one, long] = queue.post([{'sku': 42}, 'x' * 1000])
        assert repr(queue.get(one)) == f"<Message {one} of orders: {{'sku': 42}}>"
        assert len(repr(queue.get(long))) < 120


SECRET = 'hunter2'


def test_clients_and_what_they_give_show_where_they_are_and_no_secret(
    server: ServerProcess,
) -> None:
    project = uuid.uuid4().hex
    traits = f"{server.url} project='{project}' transport='rest' state='polling'"
    expected = [
        f'<Client of {traits}>',
        f'<Queue orders of {traits}>',
        f'<Topic news of {traits}>',
        f'<Subscription of queue orders of {traits}>',
        f'<Consumer of queue orders of {traits}>',
        f'<Subscription of queue orders of {traits}, closed>',
    ]
    options: dict[str, Any] = {
        'project': project,
        'token': SECRET,
        'headers': {'X-Secret': SECRET},
        'transport': 'rest',
    }
    url = server.url.replace('//', f'//user:{SECRET}@')

    def show() -> list[str]:
        with Client(url, **options) as client:
            queue = client.queue('orders')
            with queue.subscribe() as subscription, queue.consume() as consumer:
                shown = list(map(repr, (client, queue, client.topic('news'), subscription)))
                shown += [repr(consumer)]
            assert SECRET not in repr(client._requester.settings)
            return [*shown, repr(subscription)]

    async def show_asyncio() -> list[str]:
        async with aio.Client(url, **options) as client:
            queue = client.queue('orders')
            async with queue.subscribe() as subscription, queue.consume() as consumer:
                shown = list(map(repr, (client, queue, client.topic('news'), subscription)))
                shown += [repr(consumer)]
            return [*shown, repr(subscription)]

    assert show() == expected
    assert asyncio.run(show_asyncio()) == expected
    with pytest.raises(ValueError, match='//localhost') as told:
        Client(f'ftp://user:{SECRET}@localhost', project='demo')
    assert SECRET not in str(told.value)


@pytest.mark.parametrize('engine', ['websockets', 'ws4py'])
def test_frames_may_be_compressed_and_read_by_another_engine(
    server: ServerProcess, engine: str
) -> None:
    options = {'engine': engine, 'compression': True, 'transport': 'websocket'}
    with Client(server.url, project=uuid.uuid4().hex, **options) as client:  # type: ignore[arg-type]
        queue = client.queue('q')
        queue.post('x' * 10_000)
        [message] = queue.messages()
        assert message.body == 'x' * 10_000


def test_a_missing_engine_names_what_to_install() -> None:
    script = (
        "import sys; sys.modules['ws4py'] = None\n"
        'from zaqar_gevent.client import Client\n'
        "Client('http://localhost:1', project='p', engine='ws4py')\n"
    )
    finished = subprocess.run(
        [sys.executable, '-c', script], capture_output=True, text=True, timeout=60
    )
    assert finished.returncode == 1
    assert 'pip install ws4py' in finished.stderr


@pytest.fixture
def clouds(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """clouds.yaml with one cloud, whose endpoints it names itself."""
    (tmp_path / 'clouds.yaml').write_text(
        'clouds:\n  here:\n    auth_type: none\n    auth: {endpoint: "http://127.0.0.1:1"}\n'
    )
    monkeypatch.chdir(tmp_path)
    yield


def test_a_cloud_that_does_not_exist_is_told(clouds: None) -> None:
    with pytest.raises(ValueError, match='nowhere'):
        Client(cloud='nowhere')


def test_a_cloud_is_found_in_its_file(clouds: None) -> None:
    assert cloud.session_of('here').place().url == 'http://127.0.0.1:1'


def test_the_fixture_of_the_package_starts_a_real_server(
    zaqar: Client, zaqar_server: testing.Server
) -> None:
    queue = zaqar.queue('orders')
    queue.post({'sku': 42})
    assert [message.body for message in queue.messages()] == [{'sku': 42}]
    with zaqar_server.client() as other:
        assert list(other.queues()) == []


def test_a_server_that_does_not_start_says_why() -> None:
    with pytest.raises(RuntimeError, match='no-such-option'):
        testing.Server('--no-such-option').start()
