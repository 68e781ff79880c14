"""Connections that subscribe themselves are pushed what is posted: each message once, in order."""

from __future__ import annotations

import collections
import contextlib
import pathlib
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from tests.callers import TRANSPORTS, Answer, Identity, RestCaller, connect, new_identity
from tests.faults.client import COMPACT, DIALECTS, Client, Dialect
from tests.server_process import ServerProcess

COMPACTS = tuple(dialect for dialect in DIALECTS if dialect.subprotocol)
PATIENCE_SECONDS = 60
RESET = struct.pack('ii', 1, 0)
AWKWARD = [
    None,
    '',
    0,
    -1.5,
    2**63 - 1,
    [],
    {},
    'ß→\u2028"\\\x00',
    {'a': [{'b': None}]},
    'x' * 200_000,
]


class Subscriber(Client):
    """A client that keeps what it is pushed apart from what it is answered.

    pushed: what has come and has not been looked at yet. subscription_id: of the last subscription.
    """

    subscription_id = ''

    def __init__(self, port: int, dialect: Dialect = COMPACT, **options: Any) -> None:
        super().__init__(port, dialect, **options)
        self.socket.settimeout(PATIENCE_SECONDS)
        self.pushed: collections.deque[Any] = collections.deque()

    def call(self, action: str, **body: Any) -> Answer:
        """Make a request; its status and body."""
        answer = self.ask(action, **body)
        return Answer(self.dialect.status(answer), answer['body'])

    def ask(self, action: str, **body: Any) -> Any:
        self.send(self.request(action, **body))
        while is_push(message := self.answer()):
            self.pushed.append(message)
        return message

    def subscribe(self, queue_name: str = 'orders', **more: Any) -> str:
        """Subscribe this connection to a queue; the id of the subscription.

        Upstream's Redis driver stumbles over one that ends meanwhile, and is asked again.
        """
        status, body = self.call('subscription_create', queue_name=queue_name, **more)
        while status == 503:
            status, body = self.call('subscription_create', queue_name=queue_name, **more)
        assert status == 201, body
        self.subscription_id = body['subscription_id']
        return self.subscription_id

    def push(self) -> Any:
        """The next push."""
        if self.pushed:
            return self.pushed.popleft()
        message = self.answer()
        assert is_push(message), message
        return message

    def bodies(self, count: int) -> list[Any]:
        """What was posted in the messages that the next pushes carry."""
        return [self.body_of(self.push()) for _ in range(count)]

    def body_of(self, push: Any) -> Any:
        return push['message']['body'] if self.dialect.subprotocol else push['body']

    def end(self) -> str:
        """Why a subscription has ended, which is the next push."""
        push = self.push()
        if self.dialect.subprotocol:
            assert push['push'] == 'ended', push
            reason: str = push['reason']
        else:
            assert push['Message_Type'] == 'UnsubscribeConfirmation', push
            reason = push['body']['reason']
        return reason

    def has_nothing_more(self) -> bool:
        """Whether all that had been pushed when this was asked has been looked at."""
        self.ask('ping_node')
        return not self.pushed

    def reset(self) -> None:
        """End the connection without a word, as a client that crashes."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.socket.close()


class Hasty(ServerProcess):
    """A server that allows subscriptions and claims to end after seconds, not minutes."""

    CHANGES = (
        'from zaqar.transport import validation as limits; '
        'limits.MIN_CLAIM_TTL = limits.MIN_SUBSCRIPTION_TTL = 1'
    )


def is_push(message: Any) -> bool:
    return 'push' in message or 'Message_Type' in message


def message_of(marker: str) -> str:
    """The id of the message that a marker of the embedded store stands behind."""
    message_id, separator, epoch = marker.partition('-')
    assert (separator, len(epoch)) == ('-', 8)
    return message_id


def post(caller: Any, *bodies: Any, queue_name: str = 'orders') -> list[str]:
    """Post messages; their ids."""
    messages = [{'body': body, 'ttl': 300} for body in bodies]
    status, body = caller.call('message_post', queue_name=queue_name, messages=messages)
    assert status == 201, body
    ids: list[str] = body['message_ids']
    return ids


def subscriptions(caller: Any, queue_name: str = 'orders') -> list[Any]:
    """All subscriptions of a queue."""
    found: list[Any] = []
    page: dict[str, str] = {}
    while True:
        listed = caller.call('subscription_list', queue_name=queue_name, limit=20, **page).body
        if not listed['subscriptions']:
            return found
        found += listed['subscriptions']
        page = {'marker': listed['marker']}


def contents(caller: Any, queue_name: str = 'orders') -> list[Any]:
    """All messages of a queue that are not claimed, in its order."""
    found: list[Any] = []
    page: dict[str, str] = {}
    while True:
        listed = caller.call(
            'message_list', queue_name=queue_name, echo=True, limit=20, **page
        ).body
        if not listed['messages']:
            return found
        found += listed['messages']
        page = {'marker': listed['marker']}


def eventually(is_so: Callable[[], Any], within: float = PATIENCE_SECONDS) -> float:
    """Wait until something is so; how long it took, in seconds."""
    began = time.monotonic()
    while not is_so():
        assert time.monotonic() < began + within, f'not within {within} s'
        time.sleep(0.01)
    return time.monotonic() - began


Connect = Callable[..., Subscriber]


@pytest.fixture(params=DIALECTS, ids=str)
def dialect(request: pytest.FixtureRequest) -> Dialect:
    """Each way of writing requests."""
    dialect: Dialect = request.param
    return dialect


@pytest.fixture
def identity() -> Identity:
    """A client of a project of its own."""
    return new_identity()


@pytest.fixture
def subscriber_to(server: ServerProcess, identity: Identity) -> Iterator[Connect]:
    """Connects clients of one project to the shared server, until the test is over."""
    with contextlib.ExitStack() as stack:

        def connect_one(dialect: Dialect = COMPACT, **options: Any) -> Subscriber:
            options = {'identity': identity, **options}
            return stack.enter_context(Subscriber(server.port, dialect, **options))

        yield connect_one


@pytest.fixture
def subscriber(subscriber_to: Connect, dialect: Dialect) -> Subscriber:
    """A client of each dialect."""
    return subscriber_to(dialect)


@pytest.fixture
def rest(server: ServerProcess, identity: Identity) -> Iterator[RestCaller]:
    """A client of the same project over REST."""
    caller = RestCaller(server.url, identity=identity)
    yield caller
    caller.close()


@pytest.mark.parametrize('binary', [False, True], ids=['json', 'msgpack'])
def test_the_default_envelope_pushes_what_upstream_does(
    subscriber_to: Connect, rest: RestCaller, binary: bool
) -> None:
    subscriber = subscriber_to(Dialect(None, binary))
    subscriber.subscribe()
    post(rest, {'sku': 42})
    assert subscriber.push() == {
        'body': {'sku': 42},
        'ttl': 300,
        'queue_name': 'orders',
        'Message_Type': 'Notification',
    }


@pytest.mark.parametrize('dialect', COMPACTS, ids=str)
def test_the_compact_envelope_says_whose_a_push_is_and_where_it_stands(
    subscriber: Subscriber, rest: RestCaller
) -> None:
    subscription_id = subscriber.subscribe()
    [message_id] = post(rest, {'sku': 42})
    push = subscriber.push()
    marker = push['marker']
    assert message_of(marker) == message_id
    assert push == {
        'push': 'message',
        'subscription_id': subscription_id,
        'queue_name': 'orders',
        'marker': marker,
        'message': {
            'id': message_id,
            'claim_id': None,
            'ttl': 300,
            'age': 0,
            'body': {'sku': 42},
        },
    }


def test_any_body_is_pushed_as_it_was_posted(subscriber: Subscriber, rest: RestCaller) -> None:
    subscriber.subscribe()
    post(rest, *AWKWARD)
    assert subscriber.bodies(len(AWKWARD)) == AWKWARD


def test_what_is_posted_over_any_transport_is_pushed_once_and_in_order(
    server: ServerProcess, subscriber: Subscriber
) -> None:
    subscriber.subscribe()
    bodies = []
    for transport in TRANSPORTS * 3:
        caller = connect(transport, server.url, server.websocket_url, subscriber.identity)
        post(caller, *(batch := [f'{transport} {number}' for number in range(5)]))
        bodies += batch
        caller.close()
    assert subscriber.bodies(len(bodies)) == bodies
    assert subscriber.has_nothing_more()


def test_a_connection_is_pushed_what_it_posts_itself(subscriber: Subscriber) -> None:
    subscriber.subscribe()
    post(subscriber, 'mine')
    assert subscriber.bodies(1) == ['mine']


def test_what_was_posted_before_is_not_pushed(subscriber: Subscriber, rest: RestCaller) -> None:
    post(rest, 'before')
    subscriber.subscribe()
    post(rest, 'after')
    assert subscriber.bodies(1) == ['after']


def test_every_subscriber_gets_every_message_in_the_same_order(
    subscriber_to: Connect, rest: RestCaller
) -> None:
    crowd = [subscriber_to(dialect) for dialect in DIALECTS * 5]
    for subscriber in crowd:
        subscriber.subscribe()
    for start in range(0, 200, 10):
        post(rest, *range(start, start + 10))
    for subscriber in crowd:
        assert subscriber.bodies(200) == list(range(200))
        assert subscriber.has_nothing_more()


def test_a_push_comes_in_the_encoding_of_the_request_that_asked_for_it(
    subscriber: Subscriber, rest: RestCaller
) -> None:
    """Whatever the connection speaks otherwise."""
    dialect = subscriber.dialect
    other = Dialect(dialect.subprotocol, not dialect.binary)
    subscriber.subscribe('mine')
    subscriber.dialect = other
    subscriber.subscribe('other')
    for queue_name, spoken in (('mine', dialect), ('other', other)):
        post(rest, 'hello', queue_name=queue_name)
        received = subscriber.receive()
        assert received.opcode == spoken.opcode
        assert spoken.decode(received.payload)['queue_name'] == queue_name


def test_one_connection_subscribes_to_several_queues(
    subscriber: Subscriber, rest: RestCaller
) -> None:
    queues = ['a', 'b', 'c']
    ids = {queue: subscriber.subscribe(queue) for queue in queues}
    for queue in queues * 4:
        post(rest, f'for {queue}', queue_name=queue)
    pushes = [subscriber.push() for _ in range(12)]
    for queue in queues:
        mine = [push for push in pushes if push['queue_name'] == queue]
        assert [subscriber.body_of(push) for push in mine] == [f'for {queue}'] * 4
        if subscriber.dialect.subprotocol:
            assert {push['subscription_id'] for push in mine} == {ids[queue]}


def test_a_connection_subscribes_to_a_queue_once(
    subscriber: Subscriber, subscriber_to: Connect, rest: RestCaller
) -> None:
    first = subscriber.subscribe()
    assert subscriber.call('subscription_create', queue_name='orders').status == 409
    subscriber_to(subscriber.dialect).subscribe()
    post(rest, 'once')
    assert subscriber.bodies(1) == ['once']
    assert subscriber.has_nothing_more()
    deleted = subscriber.call('subscription_delete', queue_name='orders', subscription_id=first)
    assert deleted.status == 204
    assert subscriber.subscribe() != first


@pytest.mark.parametrize('transport', ['rest', 'the connection itself'])
def test_a_subscription_that_is_deleted_pushes_nothing_more(
    subscriber: Subscriber, subscriber_to: Connect, rest: RestCaller, transport: str
) -> None:
    subscription_id = subscriber.subscribe()
    witness = subscriber_to()
    witness.subscribe()
    post(rest, 'before')
    assert subscriber.bodies(1) == ['before']
    caller: Any = rest if transport == 'rest' else subscriber
    target = {'queue_name': 'orders', 'subscription_id': subscription_id}
    assert caller.call('subscription_delete', **target).status == 204
    post(rest, 'after')
    assert witness.bodies(2) == ['before', 'after']
    if transport == 'rest':
        # Who has not asked for it is told.
        assert subscriber.end() == 'deleted'
    assert subscriber.has_nothing_more()


def test_a_subscription_ends_after_the_time_it_was_given(tmp_path: pathlib.Path) -> None:
    identity = new_identity()
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Hasty(tmp_path))
        rest = RestCaller(server.url, identity=identity)
        witness, *mortal = [
            stack.enter_context(Subscriber(server.port, dialect, identity=identity))
            for dialect in (COMPACT, *DIALECTS)
        ]
        witness.subscribe()
        began = time.monotonic()
        for subscriber in mortal:
            subscriber.subscribe(ttl=5)
        post(rest, 'early')
        assert [subscriber.bodies(1) for subscriber in (witness, *mortal)] == [['early']] * 5
        eventually(lambda: len(subscriptions(rest)) == 1)
        assert time.monotonic() - began > 3.5
        assert [subscriber.end() for subscriber in mortal] == ['expired'] * 4
        eventually(lambda: not any_is_pushed(mortal, rest, witness))


def any_is_pushed(subscribers: Sequence[Subscriber], rest: RestCaller, witness: Subscriber) -> bool:
    """Whether a message that the witness is pushed is pushed to others as well."""
    post(rest, 'late')
    assert witness.bodies(1) == ['late']
    silent = [subscriber.has_nothing_more() for subscriber in subscribers]
    for subscriber in subscribers:
        subscriber.pushed.clear()
    return not all(silent)


def test_a_subscription_without_a_time_to_live_lasts_as_long_as_its_connection(
    tmp_path: pathlib.Path,
) -> None:
    config = '[transport]\ndefault_subscription_ttl = 5\n'
    with Hasty(tmp_path, config=config) as server, Subscriber(server.port) as subscriber:
        rest = RestCaller(server.url, identity=subscriber.identity)
        subscription_id = subscriber.subscribe()
        began = time.monotonic()
        while time.monotonic() < began + 6.5:
            assert [row['id'] for row in subscriptions(rest)] == [subscription_id]
            post(rest, 'still there')
            assert subscriber.bodies(1) == ['still there']
            time.sleep(0.2)


def test_a_subscription_is_listed_until_its_connection_ends(
    subscriber_to: Connect, rest: RestCaller, dialect: Dialect
) -> None:
    ends = [Client.close, Subscriber.reset, lambda client: client.socket.close()]
    for end in ends:
        subscriber = subscriber_to(dialect)
        subscription_id = subscriber.subscribe()
        [row] = subscriptions(rest)
        assert row['id'] == subscription_id
        assert row['source'] == 'orders'
        assert row['subscriber'] == 'websocket:connection'
        end(subscriber)
        eventually(lambda: not subscriptions(rest))


def test_a_connection_lost_while_it_subscribes_leaves_nothing_behind(
    subscriber_to: Connect, rest: RestCaller, dialect: Dialect
) -> None:
    for number in range(50):
        subscriber = subscriber_to(dialect)
        subscriber.send(
            b''.join(
                subscriber.request('subscription_create', queue_name='orders', options={'n': one})
                for one in (number, number)
            )
        )
        subscriber.reset()
    eventually(lambda: not subscriptions(rest))


def test_no_subscription_of_a_connection_survives_a_stop(
    tmp_path: pathlib.Path, identity: Identity
) -> None:
    config = '[drivers:transport:gevent]\nclose_timeout = 0.5\n'
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(ServerProcess(tmp_path, config=config))
        for dialect in DIALECTS * 5:
            client = Subscriber(server.port, dialect, identity=identity)
            stack.enter_context(client).subscribe()
        assert len(subscriptions(RestCaller(server.url, identity=identity))) == 20
        assert server.stop() == 0
    with ServerProcess(tmp_path) as server:
        assert subscriptions(RestCaller(server.url, identity=identity)) == []


def test_projects_do_not_see_each_others_messages(
    server: ServerProcess, subscriber: Subscriber, subscriber_to: Connect, rest: RestCaller
) -> None:
    stranger = RestCaller(server.url)
    neighbour = subscriber_to(subscriber.dialect, identity=stranger.identity)
    subscriber.subscribe()
    neighbour.subscribe()
    for number in range(20):
        post(stranger, f'theirs {number}')
        post(rest, f'mine {number}')
    assert subscriber.bodies(20) == [f'mine {number}' for number in range(20)]
    assert neighbour.bodies(20) == [f'theirs {number}' for number in range(20)]
    assert subscriber.has_nothing_more()
    assert neighbour.has_nothing_more()


def test_who_may_not_subscribe_is_refused(tmp_path: pathlib.Path, dialect: Dialect) -> None:
    policy = tmp_path / 'policy.yaml'
    policy.write_text('"subscription:create": "role:insider"\n')
    config = f'[oslo_policy]\npolicy_file = {policy}\n'
    with (
        ServerProcess(tmp_path, config=config) as server,
        Subscriber(server.port, dialect) as subscriber,
    ):
        assert subscriber.call('subscription_create', queue_name='orders').status == 403
        resumed = subscriber.call('subscription_resume', subscription_id='0000000000000001')
        assert resumed.status == 403
        rest = RestCaller(server.url, identity=subscriber.identity)
        post(rest, 'secret')
        assert subscriptions(rest) == []
        assert subscriber.has_nothing_more()


def test_only_a_connection_can_be_the_subscriber_itself(rest: RestCaller) -> None:
    refused = rest.call('subscription_create', queue_name='orders', ttl=300)
    assert refused.status == 400
    assert 'subscriber' in refused.body['description']


@pytest.mark.parametrize('wrong', [{'marker': 7}, {'marker': []}, {'ttl': 'long'}, {'ttl': 30}])
def test_a_subscription_that_cannot_be_meant_is_refused(
    subscriber: Subscriber, rest: RestCaller, wrong: dict[str, Any]
) -> None:
    assert subscriber.call('subscription_create', queue_name='orders', **wrong).status == 400
    assert subscriptions(rest) == []


def test_bodies_of_an_encrypted_queue_are_pushed_as_they_were_posted(
    subscriber: Subscriber, rest: RestCaller
) -> None:
    rest.call('queue_create', queue_name='orders', metadata={'_enable_encrypt_messages': True})
    [first] = post(rest, 'first')
    subscriber.subscribe(marker=first)
    post(rest, *AWKWARD)
    assert subscriber.bodies(len(AWKWARD)) == AWKWARD


class TestTopics:
    """Topics are subscribed to and posted to as queues are."""

    @pytest.fixture
    def poster(self, subscriber_to: Connect) -> Subscriber:
        return subscriber_to()

    def subscribe(self, subscriber: Subscriber, **more: Any) -> str:
        status, body = subscriber.call('topic_subscription_create', topic_name='news', **more)
        assert status == 201, body
        return str(body['subscription_id'])

    def post(self, poster: Subscriber, *bodies: Any) -> list[str]:
        messages = [{'body': body, 'ttl': 300} for body in bodies]
        status, body = poster.call('topic_message_post', topic_name='news', messages=messages)
        assert status == 201, body
        return list(body['message_ids'])

    def test_messages_are_pushed(self, subscriber: Subscriber, poster: Subscriber) -> None:
        subscription_id = self.subscribe(subscriber)
        [message_id] = self.post(poster, 'extra')
        push = subscriber.push()
        assert push['queue_name'] == 'news'
        assert subscriber.body_of(push) == 'extra'
        if subscriber.dialect.subprotocol:
            assert push['subscription_id'] == subscription_id
            assert message_of(push['marker']) == message_id

    def test_a_marker_resumes(self, subscriber: Subscriber, poster: Subscriber) -> None:
        ids = self.post(poster, 0, 1, 2, 3)
        self.subscribe(subscriber, marker=ids[1])
        self.post(poster, 4)
        assert subscriber.bodies(3) == [2, 3, 4]

    def test_a_deleted_subscription_ends(
        self, subscriber: Subscriber, poster: Subscriber, rest: RestCaller
    ) -> None:
        target = {'topic_name': 'news', 'subscription_id': self.subscribe(subscriber)}
        self.subscribe(poster)
        assert rest.call('topic_subscription_delete', **target).status == 204
        self.post(poster, 'late')
        assert poster.bodies(1) == ['late']
        assert subscriber.end() == 'deleted'
        assert subscriber.has_nothing_more()

    def test_bodies_of_an_encrypted_one_are_pushed_as_they_were_posted(
        self, subscriber: Subscriber, poster: Subscriber
    ) -> None:
        metadata = {'_enable_encrypt_messages': True}
        assert poster.call('topic_create', topic_name='news', metadata=metadata).status == 201
        self.subscribe(subscriber)
        self.post(poster, *AWKWARD)
        assert subscriber.bodies(len(AWKWARD)) == AWKWARD


@pytest.mark.parametrize('seen', [1, 25, 49, 50], ids=['start', 'middle', 'nearly', 'end'])
def test_a_marker_resumes_where_it_stands_and_goes_on_with_what_is_posted(
    subscriber: Subscriber, rest: RestCaller, seen: int
) -> None:
    ids = post(rest, *range(50))
    subscriber.subscribe(marker=ids[seen - 1])
    post(rest, *range(50, 60))
    assert subscriber.bodies(60 - seen) == list(range(seen, 60))
    assert subscriber.has_nothing_more()


def test_what_is_gone_before_its_turn_is_not_pushed(
    subscriber: Subscriber, rest: RestCaller
) -> None:
    ids = post(rest, *range(6))
    rest.call('message_delete_many', queue_name='orders', message_ids=[ids[0], ids[2], ids[5]])
    subscriber.subscribe(marker=ids[0])
    post(rest, 6)
    assert subscriber.bodies(4) == [1, 3, 4, 6]


def test_what_is_claimed_is_pushed_all_the_same(subscriber: Subscriber, rest: RestCaller) -> None:
    ids = post(rest, *range(4))
    assert rest.call('claim_create', queue_name='orders', limit=2, ttl=60, grace=60).status == 201
    subscriber.subscribe(marker=ids[0])
    assert subscriber.bodies(3) == [1, 2, 3]


@pytest.mark.parametrize('marker', ['garbage', 'f' * 16, '7' + 'f' * 15, '\0'])
def test_a_marker_that_is_none_keeps_nothing_from_others(
    subscriber: Subscriber, subscriber_to: Connect, rest: RestCaller, marker: str
) -> None:
    refused = subscriber.call('subscription_create', queue_name='orders', marker=marker)
    assert (refused.status, refused.body['code']) == (400, 'unknown_marker')
    neighbour = subscriber_to(subscriber.dialect)
    neighbour.subscribe()
    post(rest, 'hello')
    assert neighbour.bodies(1) == ['hello']


def test_only_a_subscription_of_the_connection_is_resumed(
    subscriber: Subscriber, subscriber_to: Connect, rest: RestCaller
) -> None:
    other = subscriber_to(subscriber.dialect).subscribe()
    for unknown in (other, 'x', '0' * 16):
        assert subscriber.call('subscription_resume', subscription_id=unknown).status == 404
    own = subscriber.subscribe()
    assert subscriber.call('subscription_resume', subscription_id=own).status == 204
    post(rest, 'once')
    assert subscriber.bodies(1) == ['once']
    assert subscriber.has_nothing_more()


def test_pushes_and_answers_share_a_connection(subscriber: Subscriber) -> None:
    subscriber.subscribe()
    for number in range(100):
        post(subscriber, number)
        [message] = contents(subscriber)[-1:]
        assert message['body'] == number
    assert subscriber.bodies(100) == list(range(100))


TOTAL = 2_000


class Reader(threading.Thread):
    """Reads a queue to its end over connections that it drops at random, each resumed by marker.

    patience: how many messages it reads over one connection at most; None for all.
    seen: ids of the messages, as they came. connections: how many there were. losses: how many of
        them the server, or its end, has ended.
    """

    def __init__(
        self,
        ports: Sequence[int],
        dialect: Dialect,
        identity: Identity,
        marker: str,
        total: int,
        patience: int | None = 200,
    ) -> None:
        super().__init__(daemon=True)
        self.seen: list[str] = []
        self.connections = self.losses = 0
        self._ports = ports
        self._dialect = dialect
        self._identity = identity
        self._marker = marker
        self._total = total
        self._patience = patience
        self._random = random.Random(total)

    def run(self) -> None:
        while len(self.seen) < self._total:
            port = self._ports[self.connections % len(self._ports)]
            self.connections += 1
            try:
                self._read(port)
            except TimeoutError:
                raise
            except OSError:
                self.losses += 1

    def _read(self, port: int) -> None:
        """Read some messages over one connection."""
        count = self._total - len(self.seen)
        if self._patience is not None:
            count = min(count, self._random.randrange(self._patience) + 1)
        with Subscriber(port, self._dialect, identity=self._identity) as client:
            client.subscribe(marker=self._marker)
            for _ in range(count):
                push = client.push()
                assert push['push'] == 'message', push
                self._marker = push['marker']
                self.seen.append(push['message']['id'])
            if self._random.random() < 0.5:
                client.reset()


def test_nobody_misses_or_repeats_a_message_however_often_connections_are_lost(
    server: ServerProcess, rest: RestCaller
) -> None:
    [first] = post(rest, 'first')
    readers = [
        Reader([server.port], dialect, rest.identity, first, TOTAL) for dialect in COMPACTS * 2
    ]
    for reader in readers:
        reader.start()
    posted: list[str] = []
    while len(posted) < TOTAL:
        count = min(random.randrange(1, 20), TOTAL - len(posted))
        posted += post(rest, *range(len(posted), len(posted) + count))
    for reader in readers:
        reader.join(PATIENCE_SECONDS)
        assert reader.seen == posted
        assert (reader.connections > 5, reader.losses) == (True, 0)
