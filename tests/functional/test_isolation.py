"""An id counts only within its queue and project, whatever is done with it, on every store."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest

from tests.callers import TRANSPORTS, Answer, Identity, RestCaller, connect, new_identity
from tests.redis_process import RedisProcess
from tests.server_process import ServerProcess
from tests.stores import CONFIGURATIONS, serve_on


@pytest.fixture(scope='module', params=list(CONFIGURATIONS))
def server(
    request: pytest.FixtureRequest,
    redis: RedisProcess,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ServerProcess]:
    """A server on each store in turn."""
    with serve_on(request.param, redis, tmp_path_factory.mktemp(request.param)) as process:
        yield process


class Victim:
    """A project with a queue in which there is one of everything.

    free, claimed: messages. claim: holds the second. subscription: of a webhook.
    """

    queue_name = 'orders'

    def __init__(self, server: ServerProcess) -> None:
        self.caller = connect('ws-json', server.url, server.websocket_url)
        messages = [{'body': text, 'ttl': 300} for text in ('claimed', 'free')]
        self.claimed, self.free = self.call('message_post', messages=messages).body['message_ids']
        claim = self.call('claim_create', limit=1, ttl=300, grace=60).body
        assert [one['id'] for one in claim['messages']] == [self.claimed]
        self.claim: str = claim['claim_id']
        made = self.call('subscription_create', subscriber='http://127.0.0.1:1/', ttl=600)
        self.subscription: str = made.body['subscription_id']

    @property
    def project_id(self) -> str:
        project_id: str = self.caller.identity.project_id
        return project_id

    def call(self, action: str, **arguments: Any) -> Answer:
        answer: Answer = self.caller.call(action, queue_name=self.queue_name, **arguments)
        return answer

    def assert_unharmed(self) -> None:
        """All is there and is as it was."""
        listed = self.call('message_list', echo=True, include_claimed=True)
        assert listed.status == 200
        held = {message['id']: message['body'] for message in listed.body['messages']}
        assert held == {self.claimed: 'claimed', self.free: 'free'}
        claim = self.call('claim_get', claim_id=self.claim)
        assert claim.status == 200
        assert claim.body['ttl'] == 300
        assert [message['id'] for message in claim.body['messages']] == [self.claimed]
        refused = self.call('message_delete', message_id=self.claimed)
        assert refused.status == 403
        found = self.call('subscription_get', subscription_id=self.subscription).body
        assert (found['subscriber'], found['ttl']) == ('http://127.0.0.1:1/', 600)
        assert found.get('confirmed') is not True
        stats = self.call('queue_get_stats').body['messages']
        assert (stats['claimed'], stats['free'], stats['total']) == (1, 1, 2)


@pytest.fixture
def victim(server: ServerProcess) -> Iterator[Victim]:
    victim = Victim(server)
    yield victim
    victim.caller.close()


class Attacker(NamedTuple):
    """A client with a queue of its own; `queue_name` is that of the requests."""

    caller: Any
    queue_name: str

    def call(self, action: str, **arguments: Any) -> Answer:
        answer: Answer = self.caller.call(action, queue_name=self.queue_name, **arguments)
        return answer


@pytest.fixture(params=TRANSPORTS)
def attacker(
    request: pytest.FixtureRequest, server: ServerProcess, victim: Victim
) -> Iterator[Attacker]:
    """Another project."""
    caller = connect(request.param, server.url, server.websocket_url)
    yield from _with_a_message(Attacker(caller, Victim.queue_name))


@pytest.fixture(params=TRANSPORTS)
def neighbour(
    request: pytest.FixtureRequest, server: ServerProcess, victim: Victim
) -> Iterator[Attacker]:
    """Another queue of the same project, whose name begins like the victim's."""
    identity = Identity(victim.project_id, str(uuid.uuid4()))
    caller = connect(request.param, server.url, server.websocket_url, identity)
    yield from _with_a_message(Attacker(caller, f'{Victim.queue_name}-2'))


def _with_a_message(attacker: Attacker) -> Iterator[Attacker]:
    posted = attacker.call('message_post', messages=[{'body': 'own', 'ttl': 300}])
    assert posted.status == 201
    yield attacker
    attacker.caller.close()


def attack_by_ids(attacker: Attacker, victim: Victim) -> None:
    """Try everything that takes an id."""
    own = attacker.call('message_list', echo=True).body['messages']
    assert [message['body'] for message in own] == ['own']
    ids = [victim.claimed, victim.free]
    for message_id in ids:
        assert attacker.call('message_get', message_id=message_id).status == 404
        for claim in ({}, {'claim_id': victim.claim}, {'claim_id': str(uuid.uuid4())}):
            status = attacker.call('message_delete', message_id=message_id, **claim).status
            assert status in (204, 400)
    # REST says 404 where there is none of them.
    assert attacker.call('message_get_many', message_ids=ids).body.get('messages', []) == []
    assert attacker.call('message_delete_many', message_ids=ids).status == 204
    both = {'message_ids': ids, 'claim_ids': [victim.claim]}
    assert attacker.call('message_delete_many', **both).status in (204, 400)
    mixed = attacker.call('message_get_many', message_ids=[*ids, own[0]['id']])
    assert [message['body'] for message in mixed.body['messages']] == ['own']
    for message_id in ids:
        page = attacker.call('message_list', marker=message_id, echo=True, include_claimed=True)
        assert page.status == 200, page
        assert {message['body'] for message in page.body['messages']} <= {'own'}
    claim = {'claim_id': victim.claim}
    assert attacker.call('claim_get', **claim).status == 404
    assert attacker.call('claim_update', **claim, ttl=600, grace=60).status == 404
    assert attacker.call('claim_delete', **claim).status == 204
    subscription = {'subscription_id': victim.subscription}
    assert attacker.call('subscription_get', **subscription).status == 404
    assert attacker.call('subscription_update', **subscription, ttl=6000).status == 404
    assert attacker.call('subscription_confirm', **subscription, confirmed=True).status == 404
    assert attacker.call('subscription_delete', **subscription).status == 204
    assert attacker.call('subscription_list').body['subscriptions'] == []
    assert attacker.call('message_delete', message_id=own[0]['id']).status == 204


def test_another_project_reaches_nothing_by_its_id(attacker: Attacker, victim: Victim) -> None:
    attack_by_ids(attacker, victim)
    victim.assert_unharmed()


def test_another_queue_reaches_nothing_by_its_id(neighbour: Attacker, victim: Victim) -> None:
    attack_by_ids(neighbour, victim)
    victim.assert_unharmed()


@pytest.mark.parametrize('transport', TRANSPORTS)
@pytest.mark.parametrize('is_own', [False, True], ids=['another project', 'the same project'])
def test_a_topic_reaches_nothing_of_a_queue_or_of_another_topic(
    server: ServerProcess, victim: Victim, transport: str, is_own: bool
) -> None:
    identity = Identity(victim.project_id, str(uuid.uuid4())) if is_own else None
    caller = connect(transport, server.url, server.websocket_url, identity)
    own = {'topic_name': 'mine'}
    messages = {'messages': [{'body': 'own', 'ttl': 300}]}
    if caller.call('topic_message_post', **own, **messages).status == 400:
        pytest.skip('this store has no topics')
    posted = victim.caller.call('topic_message_post', topic_name='theirs', **messages)
    [of_topic] = posted.body['message_ids']
    made = victim.caller.call(
        'topic_subscription_create', topic_name='theirs', subscriber='http://127.0.0.1:1/', ttl=600
    )
    ids = [victim.claimed, victim.free, of_topic]
    [existing] = caller.call('topic_message_list', **own, echo=True).body['messages']
    for message_id in set(ids) - {existing['id']}:
        assert caller.call('topic_message_get', **own, message_id=message_id).status == 404
        assert caller.call('topic_message_delete', **own, message_id=message_id).status == 204
    others = [one for one in ids if one != existing['id']]
    assert caller.call('topic_message_delete_many', **own, message_ids=others).status == 204
    for subscription_id in (victim.subscription, made.body['subscription_id']):
        named = {**own, 'subscription_id': subscription_id}
        assert caller.call('topic_subscription_get', **named).status == 404
        assert caller.call('topic_subscription_update', **named, ttl=6000).status == 404
        assert caller.call('topic_subscription_delete', **named).status == 204
    victim.assert_unharmed()
    found = victim.caller.call('topic_message_get', topic_name='theirs', message_id=of_topic)
    assert (found.status, found.body['messages']['body']) == (200, 'own')
    kept = victim.caller.call('topic_subscription_list', topic_name='theirs')
    assert [one['ttl'] for one in kept.body['subscriptions']] == [600]
    assert caller.call('topic_message_list', **own, echo=True).body['messages']
    caller.close()


def test_what_is_no_id_of_a_message_reaches_nothing(attacker: Attacker, victim: Victim) -> None:
    """Such as the keys that a store has for other things."""
    project_id = victim.project_id
    keys = [
        victim.claim,
        victim.subscription,
        f'messages.{victim.claim}',
        f'{project_id}.orders',
        f'{project_id}.queues_set',
        *(f'{project_id}.orders.{kind}' for kind in ('messages', 'claims', 'subscriptions')),
        f'{project_id}.orders.rank_counter',
        'msgset_index',
        '*',
    ]
    if not isinstance(attacker.caller, RestCaller):
        keys += [f'{project_id}/orders', '..', '']
    for key in keys:
        assert attacker.call('message_get', message_id=key).status == 404
        assert attacker.call('message_delete', message_id=key).status == 204
        refused = attacker.call('message_delete', message_id=key, claim_id=victim.claim)
        assert refused.status in (204, 400)
        assert attacker.call('claim_get', claim_id=key).status == 404
        assert attacker.call('claim_delete', claim_id=key).status == 204
        assert attacker.call('subscription_get', subscription_id=key).status == 404
        assert attacker.call('subscription_delete', subscription_id=key).status == 204
    assert attacker.call('message_get_many', message_ids=keys).body.get('messages', []) == []
    assert attacker.call('message_delete_many', message_ids=keys).status == 204
    own = attacker.call('message_list', echo=True).body['messages']
    assert [message['body'] for message in own] == ['own']
    victim.assert_unharmed()


def test_a_holder_of_a_claim_deletes_under_it_in_its_queue_only(victim: Victim) -> None:
    deleted = victim.call('message_delete', message_id=victim.claimed, claim_id=victim.claim)
    assert deleted.status == 204
    assert victim.call('message_get', message_id=victim.claimed).status == 404
    stats = victim.call('queue_get_stats').body['messages']
    assert (stats['claimed'], stats['free']) == (0, 1)
    wrong = victim.call('message_delete', message_id=victim.free, claim_id=victim.claim)
    assert wrong.status == 400
    gone = victim.call('message_delete', message_id=victim.free, claim_id='no uuid')
    assert gone.status == 400
    assert victim.call('message_delete_many', message_ids=[victim.free]).status == 204
    assert victim.call('queue_get_stats').body['messages']['total'] == 0


@pytest.mark.parametrize('transport', TRANSPORTS)
def test_names_with_dots_are_kept_apart(server: ServerProcess, transport: str) -> None:
    """Of queues: those of projects are refused where the store cannot."""
    first = new_identity().project_id
    pairs = [(first, 'b.c'), (first, 'b'), (first, 'a.b.c'), (f'{first}.b', 'c'), (first, '.b')]
    kept = {}
    for project_id, queue_name in pairs:
        caller = connect(transport, server.url, server.websocket_url, Identity(project_id))
        body = f'{project_id} {queue_name}'
        message = {'body': body, 'ttl': 300}
        posted = caller.call('message_post', queue_name=queue_name, messages=[message])
        assert posted.status in (201, 400)
        if posted.status == 201:
            kept[project_id, queue_name] = body
        else:
            assert project_id == f'{first}.b', posted
        caller.close()
    for (project_id, queue_name), body in kept.items():
        caller = connect(transport, server.url, server.websocket_url, Identity(project_id))
        listed = caller.call('message_list', queue_name=queue_name, echo=True).body['messages']
        assert [message['body'] for message in listed] == [body]
        names = {queue['name'] for queue in caller.call('queue_list').body['queues']}
        assert names == {name for project, name in kept if project == project_id}
        caller.close()


RESERVED_IN_REDIS = [
    'queues_set',
    *(f'orders.{kind}' for kind in ('messages', 'claims', 'subscriptions', 'rank_counter')),
    'a.b.messages',
]


@pytest.mark.parametrize('transport', TRANSPORTS)
def test_names_of_a_stores_own_keys_are_refused_or_harmless(
    server: ServerProcess, transport: str
) -> None:
    caller: Any = connect(transport, server.url, server.websocket_url)
    orders = {'queue_name': 'orders', 'messages': [{'body': 1, 'ttl': 300}]}
    assert caller.call('message_post', **orders).status == 201
    names = {'orders'}
    for name in (*RESERVED_IN_REDIS, 'messages', 'claims', 'subscriptions', 'flavors', 'pools'):
        created = caller.call('queue_create', queue_name=name)
        posted = caller.call('message_post', **{**orders, 'queue_name': name})
        is_refused = created.status == 400
        assert posted.status == (400 if is_refused else 201)
        assert caller.call('queue_delete', queue_name=name).status == (400 if is_refused else 204)
        if is_refused:
            assert name in RESERVED_IN_REDIS
            assert 'reserved' in str(created.body)
        else:
            assert caller.call('queue_create', queue_name=name).status == 201
            names.add(name)
    assert names >= {'orders', 'messages', 'claims', 'subscriptions', 'flavors', 'pools'}
    listed = caller.call('queue_list', limit=20, detailed=True)
    assert listed.status == 200
    assert {queue['name'] for queue in listed.body['queues']} == names
    assert caller.call('queue_get_stats', queue_name='orders').body['messages']['total'] == 1
    refused = caller.call(
        'queue_create', queue_name='x', metadata={'_dead_letter_queue': 'queues_set'}
    )
    assert refused.status == (201 if 'queues_set' in names else 400)
    caller.close()


@pytest.mark.parametrize('transport', TRANSPORTS)
def test_the_id_of_a_post_counts_in_its_queue_only(server: ServerProcess, transport: str) -> None:
    """Where the store knows posts again by their ids."""
    first, second = (connect(transport, server.url, server.websocket_url) for _ in range(2))
    if not first.call('get_capabilities').body['idempotency_seconds']:
        pytest.skip('this store does not know posts again')
    post_id = uuid.uuid4().hex
    posted = [
        caller.call(
            'message_post',
            queue_name=queue_name,
            messages=[{'body': queue_name, 'ttl': 300}],
            post_id=post_id,
        )
        for caller in (first, second)
        for queue_name in ('a', 'b')
    ]
    assert [answer.status for answer in posted] == [201] * 4
    for caller in (first, second):
        for queue_name in ('a', 'b'):
            listed = caller.call('message_list', queue_name=queue_name, echo=True).body['messages']
            assert [message['body'] for message in listed] == [queue_name]
        caller.close()


def test_queues_are_listed_page_by_page(server: ServerProcess) -> None:
    caller: Any = connect('rest', server.url, server.websocket_url)
    names = sorted([f'q.{number}' for number in range(5)] + [f'q{number}' for number in range(5)])
    for name in names:
        assert caller.call('queue_create', queue_name=name).status == 201
    seen: list[str] = []
    marker: dict[str, str] = {}
    for _ in range(len(names)):
        page = caller.call('queue_list', limit=1, **marker).body
        seen += [queue['name'] for queue in page['queues']]
        marker = {'marker': page['marker']}
    assert seen == names
    assert caller.call('queue_list', limit=1, **marker).body['queues'] == []
    caller.close()


def test_a_claim_does_not_reach_what_has_become_a_dead_letter(server: ServerProcess) -> None:
    """It has another queue now, where the claim counts for nothing."""
    caller: Any = connect('rest', server.url, server.websocket_url)
    assert caller.call('queue_create', queue_name='dead').status == 201
    metadata = {'_dead_letter_queue': 'dead', '_max_claim_count': 1}
    assert caller.call('queue_create', queue_name='work', metadata=metadata).status == 201
    messages = [{'body': 'worn out', 'ttl': 300}]
    assert caller.call('message_post', queue_name='work', messages=messages).status == 201
    lease = {'queue_name': 'work', 'ttl': 60, 'grace': 60}
    spent = caller.call('claim_create', **lease).body['claim_id']
    assert caller.call('claim_delete', queue_name='work', claim_id=spent).status == 204
    messages = [{'body': 'fresh', 'ttl': 300}]
    assert caller.call('message_post', queue_name='work', messages=messages).status == 201
    claim = caller.call('claim_create', **lease).body
    assert [message['body'] for message in claim['messages']] == ['fresh']
    held = caller.call('claim_get', queue_name='work', claim_id=claim['claim_id']).body
    assert [message['body'] for message in held['messages']] == ['fresh']
    [dead] = caller.call('message_list', queue_name='dead', echo=True).body['messages']
    assert (dead['body'], dead['claim_id']) == ('worn out', None)
    target = {'queue_name': 'dead', 'message_id': dead['id']}
    assert caller.call('message_delete', **target, claim_id=claim['claim_id']).status == 400
    assert caller.call('claim_delete', queue_name='work', claim_id=claim['claim_id']).status == 204
    found = caller.call('message_get', **target)
    assert (found.status, found.body['messages']['body']) == (200, 'worn out')
    assert caller.call('message_delete', **target).status == 204
    caller.close()


@pytest.mark.parametrize('turn', range(5))
def test_a_queue_that_many_create_at_once_has_the_metadata_of_one(
    server: ServerProcess, turn: int
) -> None:
    """And whoever made it is told so."""
    identity = new_identity()
    callers = [connect('rest', server.url, server.websocket_url, identity) for _ in range(8)]

    def create(number: int) -> int:
        metadata = {'by': number}
        answer = callers[number].call('queue_create', queue_name='orders', metadata=metadata)
        return int(answer.status)

    with ThreadPoolExecutor(len(callers)) as pool:
        statuses = list(pool.map(create, range(len(callers))))
    assert sorted(statuses) == [201] + [204] * 7
    owner = callers[0].call('queue_get', queue_name='orders').body['by']
    assert statuses[owner] == 201
    for caller in callers:
        caller.close()
