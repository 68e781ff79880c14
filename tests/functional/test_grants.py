"""Subscriptions and consumers end with the token or pre-signed URL that they were made with."""

from __future__ import annotations

import contextlib
import datetime
import pathlib
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.callers import Answer, Identity, RestCaller
from tests.faults.client import COMPACT, DEFAULT, DIALECTS, Dialect
from tests.faults.frames import Opcode, StatusCode
from tests.functional.test_authentication import (  # noqa: F401
    IdentityService,
    configuration,
    guarded,
    identity_service,
)
from tests.functional.test_push import (
    COMPACTS,
    Subscriber,
    eventually,
    is_push,
    post,
    subscriptions,
)
from tests.redis_process import ON_REDIS, RedisProcess
from tests.server_process import ServerProcess
from tests.stopwatch import Stopwatch


class Member(Subscriber):
    """A client that authenticates."""

    def authenticate(self, project_id: str, token: str, action: str = 'authenticate') -> None:
        """Say who it is from now on; the answer has to come before whatever that ends."""
        assert not self.pushed
        self.identity = Identity(project_id)
        headers = {**self.identity.headers(), 'X-Auth-Token': token}
        self.send(self.frame({'id': 'auth', 'action': action, 'headers': headers}))
        answer = self.answer()
        assert not is_push(answer), answer
        assert self.dialect.status(answer) == 200, answer

    def call_with(self, headers: dict[str, str], action: str, **body: Any) -> Answer:
        """Make a request with headers of its own."""
        document = {'id': uuid.uuid4().hex, 'action': action, 'headers': headers, 'body': body}
        self.send(self.frame(document))
        while is_push(answer := self.answer()):
            self.pushed.append(answer)
        return Answer(self.dialect.status(answer), answer['body'])

    def reason(self) -> str:
        """The next push says that something has ended; why."""
        push = self.push()
        if self.dialect.subprotocol:
            assert push['push'] == 'ended', push
        else:
            assert push['Message_Type'] == 'UnsubscribeConfirmation', push
            assert push['ttl'] == 0
        told = push if self.dialect.subprotocol else push['body']
        assert push['queue_name'] == 'orders'
        assert told['description'].endswith('.')
        reason: str = told['reason']
        return reason


class Tenants:
    """Two projects of one server, by tokens."""

    def __init__(self, server: ServerProcess, service: IdentityService) -> None:
        self.server = server
        self.service = service
        self.old, self.new = uuid.uuid4().hex, uuid.uuid4().hex

    def rest(self, project_id: str) -> RestCaller:
        """Another client of a project."""
        caller = RestCaller(self.server.url, identity=Identity(project_id, str(uuid.uuid4())))
        caller.session.headers['X-Auth-Token'] = self.service.issue(project_id)
        return caller

    def connect(self, dialect: Dialect, **token: Any) -> Member:
        """A connection that has authenticated for the old project."""
        member = Member(self.server.port, dialect)
        member.authenticate(self.old, self.service.issue(self.old, **token))
        return member


@pytest.fixture
def tenants(guarded: ServerProcess, identity_service: IdentityService) -> Tenants:  # noqa: F811
    return Tenants(guarded, identity_service)


@pytest.fixture(params=DIALECTS, ids=str)
def member(request: pytest.FixtureRequest, tenants: Tenants) -> Iterator[Member]:
    with tenants.connect(request.param) as member:
        yield member  # type: ignore[misc]


@pytest.fixture(params=COMPACTS, ids=str)
def worker(request: pytest.FixtureRequest, tenants: Tenants) -> Iterator[Member]:
    with tenants.connect(request.param) as worker:
        yield worker  # type: ignore[misc]


def soon(seconds: float) -> str:
    """A time to come, as a pre-signed URL names it: a whole second."""
    now = datetime.datetime.now(tz=datetime.UTC) + datetime.timedelta(seconds=seconds)
    return now.strftime('%Y-%m-%dT%H:%M:%S')


def presenting(signed: dict[str, Any]) -> dict[str, str]:
    """The headers that present a pre-signed URL."""
    return {
        'Client-ID': str(uuid.uuid4()),
        'X-Project-ID': signed['project'],
        'URL-Signature': signed['signature'],
        'URL-Expires': signed['expires'],
        'URL-Methods': ','.join(signed['methods']),
        'URL-Paths': ','.join(signed['paths']),
    }


def wait_until_past(expires: str) -> None:
    end = datetime.datetime.fromisoformat(expires).replace(tzinfo=datetime.UTC)
    time.sleep(max(0.0, end.timestamp() - time.time()) + 0.01)


def test_authenticating_for_another_project_ends_subscriptions(
    tenants: Tenants, member: Member
) -> None:
    rest = tenants.rest(tenants.old)
    member.subscribe()
    post(rest, 'before')
    assert member.bodies(1) == ['before']
    assert len(subscriptions(rest)) == 1
    member.authenticate(tenants.new, tenants.service.issue(tenants.new))
    assert member.reason() == 'project_changed'
    post(rest, 'of others now')
    member.subscribe()
    post(tenants.rest(tenants.new), 'its own')
    assert member.bodies(1) == ['its own']
    assert member.has_nothing_more()
    eventually(lambda: not subscriptions(rest))


@pytest.mark.parametrize('dialect', COMPACTS, ids=str)
def test_a_token_in_hello_ends_what_was_made_for_another_project(
    tenants: Tenants, dialect: Dialect
) -> None:
    with tenants.connect(dialect) as member:
        member.subscribe()
        token = tenants.service.issue(tenants.new)
        member.authenticate(tenants.new, token, action='hello')
        assert member.reason() == 'project_changed'


def test_nothing_of_the_old_project_comes_while_it_is_being_posted(
    tenants: Tenants, member: Member
) -> None:
    """However close the change is to the messages."""
    rest = tenants.rest(tenants.old)
    token = tenants.service.issue(tenants.new)
    member.subscribe()
    post(rest, *range(10))
    headers = {**Identity(tenants.new).headers(), 'X-Auth-Token': token}
    member.send(member.frame({'id': 'a', 'action': 'authenticate', 'headers': headers}))
    post(rest, *range(10, 20))
    before = []
    while is_push(message := member.answer()):
        before.append(member.body_of(message))
    assert before == list(range(len(before)))
    assert member.reason() == 'project_changed'
    member.identity = Identity(tenants.new)
    assert member.has_nothing_more()


def test_the_answer_of_a_request_in_flight_has_nothing_of_the_old_project(
    tenants: Tenants, worker: Member
) -> None:
    rest = tenants.rest(tenants.old)
    worker.send(worker.request('message_list', queue_name='orders', wait=20))
    worker.send(worker.request('claim_create', queue_name='orders', ttl=60, grace=60, wait=20))
    worker.authenticate(tenants.new, tenants.service.issue(tenants.new))
    post(rest, 'of others now')
    statuses = {worker.status(), worker.status()}
    assert statuses == {200, 204}
    assert rest.call('claim_create', queue_name='orders', ttl=60, grace=60).status == 201


def test_authenticating_for_another_project_ends_consumers_and_gives_back(
    tenants: Tenants, worker: Member
) -> None:
    rest = tenants.rest(tenants.old)
    [first, second] = post(rest, 'first', 'second')
    consumer = worker.call('queue_consume', queue_name='orders', credit=1).body['consumer_id']
    assert worker.push()['message']['id'] == first
    worker.authenticate(tenants.new, tenants.service.issue(tenants.new))
    assert worker.reason() == 'project_changed'
    settled = {'consumer_id': consumer, 'message_ids': [first]}
    for action in ('message_ack', 'message_release'):
        assert worker.call(action, **settled).status == 404
    assert worker.call('consumer_stop', consumer_id=consumer).status == 404
    assert worker.has_nothing_more()
    claimed: set[str] = set()

    def claim() -> bool:
        answer = rest.call('claim_create', queue_name='orders', ttl=60, grace=60)
        if answer.status == 201:
            claimed.update(message['id'] for message in answer.body['messages'])
        return claimed == {first, second}

    eventually(claim)


def test_what_is_being_subscribed_while_the_project_changes_ends_too(
    tenants: Tenants, worker: Member
) -> None:
    """Or is refused: whatever was asked before is answered before or after."""
    rest = tenants.rest(tenants.old)
    for number in range(20):
        post(rest, 'secret', queue_name=f'q{number}')
    headers = {
        **Identity(tenants.new).headers(),
        'X-Auth-Token': tenants.service.issue(tenants.new),
    }
    frames = [
        worker.request('subscription_create', queue_name=f'q{number}', marker='')
        for number in range(20)
    ]
    frames += [worker.request('queue_consume', queue_name=f'q{number}') for number in range(20)]
    worker.send(b''.join(frames))
    worker.send(worker.frame({'id': 'auth', 'action': 'authenticate', 'headers': headers}))
    statuses = []
    is_new = False
    while len(statuses) < 40 or not is_new:
        message = worker.answer()
        if is_push(message):
            assert not (is_new and message['push'] == 'message'), message
        elif message['id'] == 'auth':
            assert message['status'] == 200, message
            is_new = True
        else:
            statuses.append(message['status'])
    assert set(statuses) <= {201, 403}
    worker.identity = Identity(tenants.new)
    for number in range(20):
        post(rest, 'more', queue_name=f'q{number}')
    worker.has_nothing_more()
    assert {push['push'] for push in worker.pushed} <= {'ended'}
    eventually(lambda: not any(subscriptions(rest, f'q{number}') for number in range(20)))
    for number in range(20):
        lease = {'queue_name': f'q{number}', 'ttl': 60, 'grace': 60}
        eventually(lambda lease=lease: rest.call('claim_create', **lease).status == 201)


def test_messages_on_their_way_to_an_ended_consumer_are_given_back(
    tenants: Tenants, worker: Member
) -> None:
    """At once, not when their leases end."""
    rest = tenants.rest(tenants.old)
    worker.call('queue_consume', queue_name='orders', credit=1000)
    posting = threading.Thread(
        target=lambda: [post(rest, *range(start, start + 20)) for start in range(0, 1000, 20)]
    )
    posting.start()
    worker.bodies(100)
    headers = {
        **Identity(tenants.new).headers(),
        'X-Auth-Token': tenants.service.issue(tenants.new),
    }
    worker.send(worker.frame({'id': 'auth', 'action': 'authenticate', 'headers': headers}))
    posting.join()
    claimer = tenants.rest(tenants.old)
    claimed: set[int] = set()

    def claim() -> bool:
        lease = {'queue_name': 'orders', 'ttl': 60, 'grace': 60}
        answer = claimer.call('claim_create', limit=20, **lease)
        if answer.status == 201:
            claimed.update(message['body'] for message in answer.body['messages'])
        return len(claimed) == 1000

    eventually(claim)


def test_authenticating_as_another_user_of_the_project_ends_them(
    tenants: Tenants, member: Member
) -> None:
    member.subscribe()
    domain = {'id': 'home', 'name': 'Home'}
    user = {'id': 'somebody else', 'name': 'else', 'domain': domain}
    member.authenticate(tenants.old, tenants.service.issue(tenants.old, user=user))
    assert member.reason() == 'user_changed'


def test_a_new_token_of_the_same_user_keeps_them(tenants: Tenants) -> None:
    """Also past the end of the first token."""
    rest = tenants.rest(tenants.old)
    seconds = 5.0
    with contextlib.ExitStack() as stack:
        members = [
            stack.enter_context(tenants.connect(dialect, seconds=seconds)) for dialect in DIALECTS
        ]
        expired = time.time() + seconds
        for member in members:
            member.subscribe()
            member.authenticate(tenants.old, tenants.service.issue(tenants.old))
        time.sleep(max(0.0, expired - time.time()) + 0.1)
        post(rest, 'still here')
        for member in members:
            assert member.bodies(1) == ['still here']
            assert member.has_nothing_more()


def test_a_new_token_of_the_same_user_keeps_consumers(tenants: Tenants, worker: Member) -> None:
    [first, second] = post(tenants.rest(tenants.old), 'first', 'second')
    consumer = worker.call('queue_consume', queue_name='orders', credit=1).body['consumer_id']
    assert worker.push()['message']['id'] == first
    worker.authenticate(tenants.old, tenants.service.issue(tenants.old))
    settled = {'consumer_id': consumer, 'message_ids': [first]}
    assert worker.call('message_ack', **settled).status == 204
    assert worker.push()['message']['id'] == second


def test_a_token_that_is_refused_changes_nothing(tenants: Tenants, member: Member) -> None:
    member.subscribe()
    headers = {**member.identity.headers(), 'X-Auth-Token': 'of nobody'}
    assert member.call_with(headers, 'authenticate').status == 401
    post(tenants.rest(tenants.old), 'still here')
    assert member.bodies(1) == ['still here']


@pytest.mark.parametrize('dialect', [DEFAULT, COMPACT], ids=str)
def test_nothing_is_pushed_or_done_once_the_token_has_expired(
    tenants: Tenants, dialect: Dialect
) -> None:
    """Be it a moment before the connection is closed, which says why."""
    rest = tenants.rest(tenants.old)
    seconds = 3.0
    for _ in range(2):
        with tenants.connect(dialect, seconds=seconds) as member:
            expires = time.time() + seconds
            member.subscribe()
            post(rest, 'before')
            assert member.bodies(1) == ['before']
            time.sleep(max(0.0, expires - time.time()) + 0.005)
            post(rest, 'after')
            member.send(member.request('queue_create', queue_name='after'))
            received = member.receive()
            assert received.opcode == Opcode.CLOSE, received
            assert StatusCode.of(received.payload).code == 4003
        listed = rest.call('queue_list').body['queues']
        assert [queue['name'] for queue in listed] == ['orders']


@pytest.fixture(params=DIALECTS, ids=str)
def stranger(request: pytest.FixtureRequest, guarded: ServerProcess) -> Iterator[Member]:  # noqa: F811
    """A connection without a token."""
    with Member(guarded.port, request.param) as stranger:
        yield stranger  # type: ignore[misc]


def test_a_subscription_made_with_a_pre_signed_url_ends_when_that_expires(
    tenants: Tenants, stranger: Member
) -> None:
    rest = tenants.rest(tenants.old)
    wanted = {'paths': ['subscriptions'], 'methods': ['POST'], 'expires': soon(2)}
    signed = rest.call('queue_share', queue_name='orders', **wanted).body
    created = stranger.call_with(presenting(signed), 'subscription_create', queue_name='orders')
    assert created.status == 201, created
    post(rest, 'before')
    assert stranger.bodies(1) == ['before']
    wait_until_past(signed['expires'])
    post(rest, 'after')
    assert stranger.reason() == 'signature_expired'
    post(rest, 'later')
    eventually(lambda: not subscriptions(rest))
    answer = stranger.call_with(presenting(signed), 'subscription_create', queue_name='orders')
    assert answer.status == 404
    assert not stranger.pushed


@pytest.mark.parametrize('dialect', [DEFAULT, COMPACT], ids=str)
def test_its_end_is_told_when_nothing_is_posted(
    guarded: ServerProcess,  # noqa: F811
    tenants: Tenants,
    dialect: Dialect,
) -> None:
    rest = tenants.rest(tenants.old)
    wanted = {'paths': ['subscriptions'], 'methods': ['POST'], 'expires': soon(2)}
    signed = rest.call('queue_share', queue_name='orders', **wanted).body
    with Member(guarded.port, dialect) as stranger:
        headers = presenting(signed)
        created = stranger.call_with(headers, 'subscription_create', queue_name='orders')
        assert created.status == 201, created
        assert stranger.reason() == 'signature_expired'


def test_a_token_does_not_prolong_what_a_pre_signed_url_allows(
    tenants: Tenants, member: Member
) -> None:
    """Nor does its expiry end what the token allows."""
    rest = tenants.rest(tenants.new)
    wanted = {'paths': ['subscriptions'], 'methods': ['POST'], 'expires': soon(2)}
    signed = rest.call('queue_share', queue_name='orders', **wanted).body
    member.subscribe()
    created = member.call_with(presenting(signed), 'subscription_create', queue_name='orders')
    assert created.status == 201, created
    member.authenticate(tenants.old, tenants.service.issue(tenants.old))
    assert member.reason() == 'signature_expired'
    post(rest, 'of others now')
    post(tenants.rest(tenants.old), 'its own')
    assert member.bodies(1) == ['its own']
    assert member.has_nothing_more()


@pytest.mark.parametrize('claims', [False, True], ids=['list', 'claim'])
def test_a_request_that_waits_is_answered_when_its_pre_signed_url_expires(
    tenants: Tenants, claims: bool
) -> None:
    """With nothing that comes later."""
    rest = tenants.rest(tenants.old)
    path, method = ('claims', 'POST') if claims else ('messages', 'GET')
    wanted = {'paths': [path], 'methods': [method], 'expires': soon(2)}
    signed = rest.call('queue_share', queue_name='orders', **wanted).body
    stranger = RestCaller(rest.url)
    action = 'claim_create' if claims else 'message_list'
    watch = Stopwatch(tenants.server.pid)
    headers = presenting(signed)
    answer = stranger.call(action, headers=headers, queue_name='orders', wait=20)
    assert watch.seconds() < 10
    assert answer.status == (204 if claims else 200)
    assert not (answer.body or {}).get('messages')
    late = stranger.call(action, headers=headers, queue_name='orders', wait=20)
    assert late.status == 404


CHECK_SECONDS = 0.3


@pytest.fixture(scope='module')
def watchful(
    identity_service: IdentityService,  # noqa: F811
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ServerProcess]:
    """A server that asks again about tokens all the time."""
    state = tmp_path_factory.mktemp('watchful')
    policy = state / 'policy.yaml'
    policy.write_text('"queues:create": "role:member"\n')
    often = f'\n[drivers:transport:gevent]\ntoken_check_interval = {CHECK_SECONDS}\n'
    with ServerProcess(state, config=configuration(identity_service, policy) + often) as process:
        yield process


@pytest.mark.parametrize('dialect', [DEFAULT, COMPACT], ids=str)
def test_a_token_that_is_revoked_ends_its_connection(
    watchful: ServerProcess,
    identity_service: IdentityService,  # noqa: F811
    dialect: Dialect,
) -> None:
    tenants = Tenants(watchful, identity_service)
    rest = tenants.rest(tenants.old)
    token = identity_service.issue(tenants.old)
    with Member(watchful.port, dialect) as member:
        member.authenticate(tenants.old, token)
        member.subscribe()
        post(rest, 'before')
        time.sleep(2 * CHECK_SECONDS)
        assert member.bodies(1) == ['before']
        assert member.call('ping_node').status == 204
        del identity_service.tokens[token]
        code = member.status_code()
        assert (code.code, code.reason) == (4003, b'The token is not valid any more.')
    post(rest, 'after')
    eventually(lambda: not subscriptions(rest))


def test_a_role_that_is_revoked_counts_no_more(
    watchful: ServerProcess,
    identity_service: IdentityService,  # noqa: F811
) -> None:
    tenants = Tenants(watchful, identity_service)
    token = identity_service.issue(tenants.old)
    with Member(watchful.port, COMPACT) as member:
        member.authenticate(tenants.old, token)
        member.subscribe()
        assert member.call('queue_create', queue_name='a').status == 201
        identity_service.tokens[token]['roles'] = [{'id': 'reader', 'name': 'reader'}]
        eventually(lambda: member.call('queue_create', queue_name='b').status == 403)
        post(tenants.rest(tenants.old), 'still here')
        assert member.bodies(1) == ['still here']


Open = Callable[[str], Member]


@pytest.fixture
def shared(server: ServerProcess) -> Iterator[Open]:
    """Opens connections to a server that believes the headers of each request."""
    opened: list[Member] = []

    def connect(project_id: str) -> Member:
        opened.append(Member(server.port, COMPACT, identity=Identity(project_id)))
        return opened[-1]

    yield connect
    for one in opened:
        one.socket.close()


def test_a_request_for_another_project_does_not_reach_a_consumer(
    server: ServerProcess, shared: Open
) -> None:
    """Where one connection serves several projects."""
    mine, other = Identity(uuid.uuid4().hex), Identity(uuid.uuid4().hex)
    worker = shared(mine.project_id)
    [message_id] = post(RestCaller(server.url, identity=mine), 'secret')
    consumer = worker.call('queue_consume', queue_name='orders').body['consumer_id']
    assert worker.push()['message']['id'] == message_id
    settled = {'consumer_id': consumer, 'message_ids': [message_id]}
    for action in ('message_ack', 'message_release'):
        assert worker.call_with(other.headers(), action, **settled).status == 404
    refused = worker.call_with(other.headers(), 'consumer_stop', consumer_id=consumer)
    assert refused.status == 404
    assert worker.call('message_ack', **settled).status == 204


def test_a_request_for_another_project_or_queue_does_not_reach_a_subscription(
    server: ServerProcess, shared: Open
) -> None:
    mine, other = Identity(uuid.uuid4().hex), Identity(uuid.uuid4().hex)
    subscriber = shared(mine.project_id)
    named = {'subscription_id': subscriber.subscribe()}
    headers = other.headers()
    assert subscriber.call_with(headers, 'subscription_resume', **named).status == 404
    rest = RestCaller(server.url, identity=mine)
    for caller, queue_name in ((RestCaller(server.url, identity=other), 'orders'), (rest, 'else')):
        ended = caller.call('subscription_delete', queue_name=queue_name, **named)
        assert ended.status == 204
    post(rest, 'still here')
    assert subscriber.bodies(1) == ['still here']


def test_subscriptions_of_one_id_in_two_pools_are_two(tmp_path: pathlib.Path) -> None:
    """Each store counts for itself; one connection may listen to queues of both."""
    config = '[DEFAULT]\npooling = True\nadmin_mode = True\n'
    with ServerProcess(tmp_path, config=config) as server, Member(server.port) as member:
        rest = RestCaller(server.url, identity=member.identity)
        headers = {**rest.identity.headers(), 'X-Roles': 'admin'}
        for name in ('a', 'b'):
            pool = {'pool_name': name, 'uri': f'sqlite:///{tmp_path}/{name}.sqlite', 'weight': 1}
            assert rest.call('pool_create', headers=headers, **pool).status == 201
            flavor = {'flavor_name': f'flavor-{name}', 'pool_list': [name]}
            assert rest.call('flavor_create', headers=headers, **flavor).status == 201
            metadata = {'_flavor': f'flavor-{name}'}
            created = rest.call('queue_create', queue_name=name, metadata=metadata)
            assert created.status == 201
        ids = [member.subscribe('a'), member.subscribe('b')]
        assert ids[0] == ids[1], 'the test is for equal ids'
        ended = rest.call('subscription_delete', queue_name='a', subscription_id=ids[0])
        assert ended.status == 204
        assert (member.push()['queue_name'], member.has_nothing_more()) == ('a', True)
        for name in ('a', 'b'):
            post(rest, name, queue_name=name)
        assert member.bodies(1) == ['b']
        assert member.has_nothing_more()


@pytest.fixture(scope='module')
def guarded_on_redis(
    identity_service: IdentityService,  # noqa: F811
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ServerProcess]:
    """A server that wants tokens, on upstream's driver."""
    state = tmp_path_factory.mktemp('redis')
    policy = state / 'policy.yaml'
    policy.write_text('{}')
    with RedisProcess(state) as redis:
        config = configuration(identity_service, policy) + ON_REDIS.format(redis=redis.patient_uri)
        with ServerProcess(state, config=config) as process:
            yield process


def test_in_redis_a_change_of_project_ends_everything_too(
    guarded_on_redis: ServerProcess,
    identity_service: IdentityService,  # noqa: F811
) -> None:
    tenants = Tenants(guarded_on_redis, identity_service)
    rest = tenants.rest(tenants.old)
    with tenants.connect(COMPACT) as member:
        member.subscribe()
        [first, second] = post(rest, 'first', 'second')
        assert member.bodies(2) == ['first', 'second']
        consumer = member.call('queue_consume', queue_name='orders', credit=1).body['consumer_id']
        assert member.push()['message']['id'] == first
        member.authenticate(tenants.new, tenants.service.issue(tenants.new))
        assert [member.reason(), member.reason()] == ['project_changed'] * 2
        post(rest, 'of others now')
        acknowledged = member.call('message_ack', consumer_id=consumer, message_ids=[first])
        assert acknowledged.status == 404
        for claim in ({}, {'claim_id': str(uuid.uuid4())}):
            target = {'queue_name': 'orders', 'message_id': second, **claim}
            assert member.call('message_delete', **target).status in (204, 400)
        assert member.has_nothing_more()
        eventually(lambda: not subscriptions(rest))
        lease = {'queue_name': 'orders', 'ttl': 60, 'grace': 60}
        eventually(
            lambda: (
                len(rest.call('message_list', queue_name='orders', echo=True).body['messages']) == 3
            )
        )
        found = rest.call('claim_create', **lease).body['messages']
        assert [message['body'] for message in found] == ['first', 'second', 'of others now']
