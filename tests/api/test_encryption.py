"""Queues in which encrypted and plain messages mix, on the embedded store and on Redis.

Two servers with different keys share each store, so there is always something that one of them
cannot decrypt.
"""

from __future__ import annotations

import pathlib
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.api.test_messages import ENCRYPTED, bodies_of, post
from tests.callers import Identity, RestCaller, connect
from tests.faults.client import COMPACT, DEFAULT
from tests.functional.test_consumers import Worker
from tests.functional.test_notifications import Webhook
from tests.functional.test_push import Subscriber
from tests.redis_process import ON_REDIS, RedisProcess
from tests.server_process import ServerProcess

ON_SQLITE = """
[drivers]
message_store = sqlite
management_store = sqlite
[drivers:message_store:sqlite]
uri = sqlite:///{directory}/shared.sqlite
[drivers:management_store:sqlite]
uri = sqlite:///{directory}/shared.sqlite
"""
OPTIONS = """
[storage]
message_pipeline = zaqar.notification.notifier
[drivers:transport:gevent]
metadata_cache_seconds = 0
[encryption]
keys = {keys}
"""
KEY, OTHER_KEY = 'the key of one server', 'the key of another server'
SECRETS = ['secret', {'sku': 42}, [1, None], '', "cos\nsystem\n(S'false'\ntR."]


class Servers(NamedTuple):
    """`stranger` shares the store with `own` and has another key."""

    store: str
    own: ServerProcess
    stranger: ServerProcess


@pytest.fixture(scope='module', params=['sqlite', 'redis'])
def servers(
    request: pytest.FixtureRequest, redis: RedisProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Servers]:
    directory = tmp_path_factory.mktemp(request.param)
    template = {'sqlite': ON_SQLITE, 'redis': ON_REDIS}[request.param]
    store = template.format(directory=directory, redis=redis.patient_uri)

    def server(name: str, key: str) -> ServerProcess:
        return ServerProcess(directory / name, config=store + OPTIONS.format(keys=key))

    with server('own', KEY) as own, server('stranger', OTHER_KEY) as stranger:
        yield Servers(request.param, own, stranger)
        # Whatever was undecipherable, nobody's request failed for it.
        assert [line for line in own.output if 'ERROR' in line or 'Traceback' in line] == []


@pytest.fixture
def server(servers: Servers) -> ServerProcess:
    return servers.own


@pytest.fixture
def stranger(servers: Servers, api: Any) -> Iterator[RestCaller]:
    """The same client, asking the server with the other key."""
    caller = RestCaller(servers.stranger.url, identity=api.identity)
    yield caller
    caller.close()


def set_encryption(api: Any, wanted: bool, queue_name: str = 'orders') -> None:
    change = {'op': 'add', 'path': '/metadata/_enable_encrypt_messages', 'value': wanted}
    assert api.call('queue_update', queue_name=queue_name, changes=[change]).status == 200


class Mixed(NamedTuple):
    """What is in a queue: the bodies as they are to be read, and the messages' ids."""

    bodies: list[Any]
    ids: list[str]


@pytest.fixture
def mixed(api: Any, stranger: RestCaller) -> Mixed:
    """Plain, undecipherable, encrypted and plain messages, in this order."""
    assert api.call('queue_create', queue_name='orders').status == 201
    ids = post(api, 'plain', {'a': 1})
    set_encryption(api, True)
    ids += post(stranger, 'of the stranger')
    ids += post(api, *SECRETS)
    set_encryption(api, False)
    ids += post(api, 'plain again')
    undeciphered = stored_body(api, ids[2])
    assert undeciphered.startswith('zgev1.')
    return Mixed(['plain', {'a': 1}, undeciphered, *SECRETS, 'plain again'], ids)


def stored_body(caller: Any, message_id: str, queue_name: str = 'orders') -> Any:
    """What a server that cannot decrypt a message gives out for it."""
    found = caller.call('message_get', queue_name=queue_name, message_id=message_id)
    assert found.status == 200
    return found.body['messages']['body']


@pytest.mark.parametrize('is_on', [False, True], ids=['then off', 'then on'])
def test_a_mixed_queue_is_read(api: Any, mixed: Mixed, is_on: bool) -> None:
    """Whatever the queue's metadata says at the moment."""
    set_encryption(api, is_on)
    assert bodies_of(api.call('message_list', queue_name='orders', echo=True)) == mixed.bodies
    many = api.call('message_get_many', queue_name='orders', message_ids=mixed.ids)
    assert bodies_of(many) == mixed.bodies
    assert [stored_body(api, one) for one in mixed.ids] == mixed.bodies


@pytest.mark.parametrize('is_on', [False, True], ids=['then off', 'then on'])
def test_a_mixed_queue_is_claimed_and_popped(api: Any, mixed: Mixed, is_on: bool) -> None:
    set_encryption(api, is_on)
    claim = api.call('claim_create', queue_name='orders', limit=4, ttl=60, grace=60)
    assert (claim.status, bodies_of(claim)) == (201, mixed.bodies[:4])
    claim_id = claim.body['claim_id']
    again = api.call('claim_get', queue_name='orders', claim_id=claim_id)
    assert (again.status, bodies_of(again)) == (200, mixed.bodies[:4])
    assert api.call('claim_delete', queue_name='orders', claim_id=claim_id).status == 204
    for part in (mixed.bodies[:4], mixed.bodies[4:]):
        popped = api.call('message_delete_many', queue_name='orders', pop=len(part))
        assert (popped.status, bodies_of(popped)) == (200, part)
    assert bodies_of(api.call('message_list', queue_name='orders', echo=True)) == []


def test_what_was_encrypted_later_than_it_was_switched_on_is_popped(api: Any) -> None:
    assert api.call('queue_create', queue_name='orders').status == 201
    post(api, 1, 2, 3)
    set_encryption(api, True)
    post(api, 4)
    popped = api.call('message_delete_many', queue_name='orders', pop=4)
    assert (popped.status, bodies_of(popped)) == (200, [1, 2, 3, 4])


def test_what_is_stored_is_not_what_was_posted(api: Any, stranger: RestCaller) -> None:
    api.call('queue_create', queue_name='orders', metadata=ENCRYPTED)
    stored = [stored_body(stranger, one) for one in post(api, 'secret', 'secret')]
    assert 'secret' not in ''.join(stored)
    assert stored[0] != stored[1]


def test_ciphertext_posted_in_plain_is_plain(api: Any, stranger: RestCaller) -> None:
    """It reads as it was posted, in its own queue and in others, whatever is switched on."""
    api.call('queue_create', queue_name='orders', metadata=ENCRYPTED)
    api.call('queue_create', queue_name='others')
    [message_id] = post(api, 'secret')
    stored = stored_body(stranger, message_id)
    set_encryption(api, False)
    post(api, stored)
    post(api, stored, queue_name='others')
    for queue_name in ('orders', 'others'):
        set_encryption(api, True, queue_name)
        post(api, stored, queue_name=queue_name)
    listed = api.call('message_list', queue_name='orders', echo=True)
    assert bodies_of(listed) == ['secret', stored, stored]
    listed = api.call('message_list', queue_name='others', echo=True)
    assert bodies_of(listed) == [stored, stored]


def test_ciphertext_of_another_project_stays_what_it_is(
    api: Any, stranger: RestCaller, server: ServerProcess
) -> None:
    api.call('queue_create', queue_name='orders', metadata=ENCRYPTED)
    [message_id] = post(api, 'secret')
    stored = stored_body(stranger, message_id)
    attacker = RestCaller(server.url)
    attacker.call('queue_create', queue_name='orders')
    post(attacker, stored)
    set_encryption(attacker, True)
    post(attacker, stored)
    assert bodies_of(attacker.call('message_list', queue_name='orders', echo=True)) == [stored] * 2
    assert bodies_of(attacker.call('message_delete_many', queue_name='orders', pop=2)) == [
        stored,
        stored,
    ]
    attacker.close()


def test_a_dead_letter_is_read(api: Any, stranger: RestCaller, server: ServerProcess) -> None:
    """It was encrypted for the queue that it was posted to, and is read in another."""
    assert api.call('queue_create', queue_name='dead').status == 201
    metadata = {**ENCRYPTED, '_max_claim_count': 1, '_dead_letter_queue': 'dead'}
    metadata['_dead_letter_queue_messages_ttl'] = 300
    assert api.call('queue_create', queue_name='orders', metadata=metadata).status == 201
    post(api, 'poison', ttl=300)
    undecipherable = post(stranger, 'more of it', ttl=300)
    stored = stored_body(api, undecipherable[0])
    for _ in range(2):
        claim = api.call('claim_create', queue_name='orders', ttl=60, grace=60)
        if claim.status == 201:
            assert bodies_of(claim) == ['poison', stored]
            api.call('claim_delete', queue_name='orders', claim_id=claim.body['claim_id'])
    assert claim.status == 204
    # Upstream's Redis driver leaves dead letters claimed, where only a subscriber sees them.
    with Subscriber(server.port, identity=api.identity) as subscriber:
        subscriber.subscribe('dead', marker='')
        assert subscriber.bodies(2) == ['poison', stored]


def test_a_topic_is_encrypted_too(api: Any) -> None:
    assert api.call('topic_create', topic_name='news', metadata=ENCRYPTED).status == 201
    messages = [{'body': body, 'ttl': 300} for body in SECRETS]
    posted = api.call('topic_message_post', topic_name='news', messages=messages)
    assert posted.status == 201
    listed = api.call('topic_message_list', topic_name='news', echo=True)
    assert bodies_of(listed) == SECRETS


def test_a_long_poll_gets_it(api: Any, server: ServerProcess, mixed: Mixed) -> None:
    api.call('message_delete_many', queue_name='orders', pop=len(mixed.ids))
    set_encryption(api, True)
    poster = RestCaller(server.url, identity=api.identity)
    for action in ({'action': 'message_list', 'echo': True}, {'action': 'claim_create'}):
        timer = threading.Timer(0.3, post, (poster, 'late'))
        timer.start()
        answer = api.call(queue_name='orders', wait=10, **action)
        timer.join()
        assert bodies_of(answer) == ['late']
        api.call('message_delete_many', queue_name='orders', pop=1)
    poster.close()


class TestPushed:
    """Subscribers, consumers and webhooks get what the others read."""

    @pytest.fixture(params=['default', 'compact'])
    def subscriber(
        self, request: pytest.FixtureRequest, server: ServerProcess, api: Any
    ) -> Iterator[Subscriber]:
        dialect = DEFAULT if request.param == 'default' else COMPACT
        with Subscriber(server.port, dialect, identity=api.identity) as client:
            yield client

    def test_to_a_subscriber(self, subscriber: Subscriber, mixed: Mixed, api: Any) -> None:
        subscriber.subscribe(marker='')
        assert subscriber.bodies(len(mixed.bodies)) == mixed.bodies
        set_encryption(api, True)
        post(api, 'live')
        set_encryption(api, False)
        post(api, 'live and plain')
        assert subscriber.bodies(2) == ['live', 'live and plain']

    def test_to_a_consumer(self, server: ServerProcess, mixed: Mixed, api: Any) -> None:
        with Worker(server.port, COMPACT, identity=api.identity) as worker:
            worker.consume(credit=len(mixed.bodies))
            pushed = worker.messages(len(mixed.bodies))
            # Of what it claims at once, upstream's Redis driver keeps no order.
            found = {message['id']: message['body'] for message in pushed}
            assert found == dict(zip(mixed.ids, mixed.bodies, strict=True))
            worker.ack(*pushed)
        assert bodies_of(api.call('message_list', queue_name='orders', echo=True)) == []

    def test_to_a_webhook(self, api: Any) -> None:
        webhook = Webhook()
        api.call('queue_create', queue_name='orders', metadata=ENCRYPTED)
        created = api.call(
            'subscription_create', queue_name='orders', subscriber=f'{webhook.url}/hook', ttl=300
        )
        assert created.status == 201
        post(api, *SECRETS)
        # The first may be the request to confirm the subscription.
        told = [webhook.take()[2] for _ in SECRETS]
        assert [one['body'] for one in told] == SECRETS
        webhook.close()


def test_a_key_is_replaced_step_by_step(tmp_path: pathlib.Path) -> None:
    """First it joins the old one, in front of it; then the old one is taken out."""
    identity = Identity()
    store = ON_SQLITE.format(directory=tmp_path)

    def serve(name: str, keys: str) -> ServerProcess:
        return ServerProcess(tmp_path / name, config=store + OPTIONS.format(keys=keys))

    def listed(server: ServerProcess) -> list[Any]:
        caller = RestCaller(server.url, identity=identity)
        return bodies_of(caller.call('message_list', queue_name='rotated', echo=True))

    with serve('old', KEY) as old:
        caller = RestCaller(old.url, identity=identity)
        caller.call('queue_create', queue_name='rotated', metadata=ENCRYPTED)
        post(caller, 'old', queue_name='rotated')
    with serve('both', f'{OTHER_KEY}, {KEY}') as both:
        caller = RestCaller(both.url, identity=identity)
        post(caller, 'new', queue_name='rotated')
        assert listed(both) == ['old', 'new']
    with serve('new', OTHER_KEY) as new:
        [old_body, new_body] = listed(new)
        assert old_body.startswith('zgev1.')
        assert new_body == 'new'


@pytest.mark.parametrize('transport', ['rest', 'v2-json'])
def test_without_a_key_a_queue_cannot_be_encrypted(tmp_path: pathlib.Path, transport: str) -> None:
    with ServerProcess(tmp_path) as server:
        caller = connect(transport, server.url, server.websocket_url)
        identity = caller.identity
        assert caller.call('queue_create', queue_name='q', metadata=ENCRYPTED).status == 201
        caller.close()
    config = '[transport]\nmessage_encryption_key =\n'
    with ServerProcess(tmp_path, config=config) as server:
        caller = connect(transport, server.url, server.websocket_url, identity)
        refused = [
            caller.call('queue_create', queue_name='r', metadata=ENCRYPTED),
            caller.call('message_post', queue_name='q', messages=[{'body': 1}]),
        ]
        assert [answer.status for answer in refused] == [400, 400]
        assert all('[encryption] keys' in str(answer.body) for answer in refused)
        assert bodies_of(caller.call('message_list', queue_name='q', echo=True)) == []
        caller.close()
