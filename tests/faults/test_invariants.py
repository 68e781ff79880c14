"""Two servers of one store are killed again and again while everything is going on.

Nothing that was acknowledged is lost, nothing is given out twice, and the order is kept. What a
request without an answer has done is not known: it may have been done, once, or not.
"""

from __future__ import annotations

import collections
import itertools
import pathlib
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import pytest
import requests
import websocket

from tests.callers import Identity, connect, new_identity
from tests.client.waiting import wait_until
from tests.faults.client import Dialect
from tests.functional.test_push import COMPACTS, Subscriber
from tests.server_process import ServerProcess

CONFIG = '[encryption]\nkeys = 0123456789abcdef0123456789abcdef\n'
LOST = (OSError, websocket.WebSocketException, requests.RequestException, EOFError)
AT_ONCE = 3
TTL = 3600
SECONDS = 60.0

Key = tuple[str, int]
"""The name of a producer and the number of its message."""


class Pair:
    """Two servers on one store; `place` says which of them somebody is to use next."""

    def __init__(self, state_path: pathlib.Path) -> None:
        self.servers = [ServerProcess(state_path, config=CONFIG) for _ in range(2)]
        self._turn = itertools.count()

    def __enter__(self) -> Pair:
        for server in self.servers:
            server.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        for server in self.servers:
            server.stop()

    def place(self) -> ServerProcess:
        return self.servers[next(self._turn) % 2]


class Actor(threading.Thread):
    """Does something over and over on one of the servers, or on the other when that was killed.

    unanswered: how often a connection ended before the answer.
    """

    def __init__(self, pair: Pair, transport: str, identity: Identity) -> None:
        super().__init__(daemon=True)
        self._pair = pair
        self._transport = transport
        self._identity = identity
        self._stopping = threading.Event()
        self._caller: Any = None
        self.unanswered = 0
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            while not self._stopping.is_set():
                self.act()
        except BaseException as error:
            self.failure = error

    def act(self) -> None:
        raise NotImplementedError

    def call(self, action: str, **arguments: Any) -> Any:
        """The body of an answer of success; None where none came."""
        try:
            if self._caller is None:
                server = self._pair.place()
                self._caller = connect(
                    self._transport, server.url, server.websocket_url, self._identity
                )
        except LOST:
            # It was not even asked.
            time.sleep(0.02)
            return self.call(action, **arguments) if not self._stopping.is_set() else None
        try:
            answer = self._caller.call(action, **arguments)
        except LOST:
            self.unanswered += 1
            with suppress(*LOST):
                self._caller.close()
            self._caller = None
            return None
        assert answer.status < 300, (action, answer)
        return answer.body or {}

    def stop(self) -> None:
        self._stopping.set()
        self.join(SECONDS)
        assert not self.is_alive(), type(self)
        if self.failure is not None:
            raise self.failure


class Posted(NamedTuple):
    """A message, and when its post was sent and acknowledged; never, if no answer came."""

    sent: float
    acknowledged: float | None


class Producer(Actor):
    """Posts messages to a queue, each with its name and a number one higher."""

    def __init__(self, queue: str, name: str, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._queue = queue
        self._name = name
        self.posted: dict[Key, Posted] = {}

    def act(self) -> None:
        first = len(self.posted)
        keys = [(self._name, number) for number in range(first, first + AT_ONCE)]
        messages = [{'body': list(key), 'ttl': TTL} for key in keys]
        sent = time.monotonic()
        answer = self.call('message_post', queue_name=self._queue, messages=messages)
        acknowledged = None if answer is None else time.monotonic()
        self.posted.update(dict.fromkeys(keys, Posted(sent, acknowledged)))
        time.sleep(0.002)


class Popper(Actor):
    """Takes messages from the front."""

    def __init__(self, queue: str, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._queue = queue
        self.taken: list[Key] = []

    def act(self) -> None:
        answer = self.call('message_delete_many', queue_name=self._queue, pop=AT_ONCE)
        self.taken += [tuple(one['body']) for one in (answer or {}).get('messages', ())]
        time.sleep(0.01)


class Worker(Actor):
    """Claims messages and deletes them.

    done: those whose deletion was acknowledged. started: those whose deletion was asked for.
    """

    def __init__(self, queue: str, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._queue = queue
        self.claimed: list[Key] = []
        self.done: list[Key] = []
        self.started: set[Key] = set()

    def act(self) -> None:
        target = {'queue_name': self._queue}
        claim = self.call('claim_create', limit=AT_ONCE, ttl=600, grace=600, **target)
        for message in (claim or {}).get('messages', ()):
            key = tuple(message['body'])
            self.claimed.append(key)
            self.started.add(key)
            named = {'message_id': message['id'], 'claim_id': claim['claim_id']}
            if self.call('message_delete', **named, **target) is not None:
                self.done.append(key)
        time.sleep(0.01)


class Purger(Actor):
    """Purges a queue now and then.

    purges: when each began and ended, and whether it was answered.
    """

    def __init__(self, queue: str, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._queue = queue
        self.purges: list[tuple[float, float, bool]] = []

    def act(self) -> None:
        began = time.monotonic()
        answer = self.call('queue_purge', queue_name=self._queue, resource_types=['messages'])
        self.purges.append((began, time.monotonic(), answer is not None))
        self._stopping.wait(0.3)


class Follower(Actor):
    """Is pushed a queue, and goes on after its last message whichever server is left."""

    def __init__(self, queue: str, dialect: Dialect, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._queue = queue
        self._dialect = dialect
        self._marker = ''
        self.seen: list[Key] = []

    def act(self) -> None:
        with suppress(*LOST):
            port = self._pair.place().port
            with Subscriber(port, self._dialect, identity=self._identity) as client:
                client.socket.settimeout(1)
                client.subscribe(self._queue, marker=self._marker)
                while not self._stopping.is_set():
                    with suppress(TimeoutError):
                        push = client.push()
                        assert push['push'] == 'message', push
                        self._marker = push['marker']
                        self.seen.append(tuple(push['message']['body']))


def list_all(caller: Any, queue: str) -> list[Key]:
    found: list[Key] = []
    marker = ''
    while True:
        page = caller.call(
            'message_list',
            queue_name=queue,
            echo=True,
            include_claimed=True,
            limit=20,
            marker=marker or '0' * 16,
        ).body
        if not page['messages']:
            return found
        found += [tuple(message['body']) for message in page['messages']]
        marker = page['marker']


def assert_in_order(keys: list[Key]) -> None:
    """Of each producer, nothing comes twice, and nothing after what was posted later."""
    last: dict[str, int] = collections.defaultdict(lambda: -1)
    for name, number in keys:
        assert number > last[name], (name, number, last[name])
        last[name] = number


def acknowledged(producers: list[Producer]) -> set[Key]:
    return {
        key
        for producer in producers
        for key, posted in producer.posted.items()
        if posted.acknowledged is not None
    }


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ('kills', 'seconds'), [(3, 1.0), pytest.param(10, 3.0, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize('encrypted', [False, True], ids=['plain', 'encrypted'])
def test_nothing_is_lost_or_doubled_and_the_order_is_kept(
    tmp_path: pathlib.Path, kills: int, seconds: float, encrypted: bool
) -> None:
    identity = new_identity()
    moment = random.Random(kills)
    queues = ('followed', 'popped', 'worked', 'purged')
    with Pair(tmp_path) as pair:
        caller = connect('rest', pair.servers[0].url, '', identity)
        for queue in queues:
            metadata = {'_enable_encrypt_messages': encrypted}
            assert caller.call('queue_create', queue_name=queue, metadata=metadata).status == 201

        def make(kind: Callable[..., Any], *arguments: Any, transport: str = 'rest') -> Any:
            return kind(*arguments, pair, transport, identity)

        producers = {
            queue: [
                make(Producer, queue, f'{queue}-{transport}', transport=transport)
                for transport in ('rest', 'ws-json', 'v2-msgpack')
            ]
            for queue in queues
        }
        poppers = [make(Popper, 'popped', transport=one) for one in ('rest', 'v2-json')]
        workers = [make(Worker, 'worked', transport=one) for one in ('rest', 'ws-msgpack')]
        purger = make(Purger, 'purged', transport='v2-json')
        followers = [make(Follower, 'followed', dialect) for dialect in COMPACTS]
        consumers = [*poppers, *workers, purger, *followers]
        actors = [*itertools.chain(*producers.values()), *consumers]
        for actor in actors:
            actor.start()
        for number in range(kills):
            time.sleep(seconds * (0.5 + moment.random()))
            server = pair.servers[number % 2]
            server.kill()
            server.start()
        for actor in itertools.chain(*producers.values(), poppers, workers, [purger]):
            actor.stop()
        caller = connect('rest', pair.servers[0].url, '', identity)
        left = {queue: list_all(caller, queue) for queue in queues}
        for follower in followers:
            wait_until(
                lambda own=follower: len(own.seen) >= len(left['followed']),  # type: ignore[misc]
                SECONDS,
                'the followers come to the end',
            )
            follower.stop()
    assert sum(actor.unanswered for actor in actors) >= kills
    for queue in queues:
        assert len(acknowledged(producers[queue])) > kills * 20
        assert_in_order(left[queue])
    check_followed(followers, producers['followed'], left['followed'])
    check_popped(poppers, producers['popped'], left['popped'])
    check_worked(workers, producers['worked'], left['worked'])
    check_purged(purger, producers['purged'], left['purged'])


def check_followed(followers: list[Follower], producers: list[Producer], left: list[Key]) -> None:
    assert acknowledged(producers) <= set(left)
    for follower in followers:
        # Each once, and in the order of the queue.
        assert follower.seen == left


def check_popped(poppers: list[Popper], producers: list[Producer], left: list[Key]) -> None:
    taken = list(itertools.chain(*(popper.taken for popper in poppers)))
    for popper in poppers:
        assert popper.taken
        assert_in_order(popper.taken)
    assert len(taken) == len(set(taken))
    assert not set(taken) & set(left)
    missing = acknowledged(producers) - set(taken) - set(left)
    # What was taken for an answer that did not come is gone.
    assert len(missing) <= AT_ONCE * sum(popper.unanswered for popper in poppers)


def check_worked(workers: list[Worker], producers: list[Producer], left: list[Key]) -> None:
    claimed = list(itertools.chain(*(worker.claimed for worker in workers)))
    done = set(itertools.chain(*(worker.done for worker in workers)))
    started = set(itertools.chain(*(worker.started for worker in workers)))
    # Leases last longer than the test.
    assert len(claimed) == len(set(claimed))
    assert done
    assert not done & set(left)
    assert acknowledged(producers) <= set(left) | started
    for worker in workers:
        assert_in_order(worker.claimed)


def check_purged(purger: Purger, producers: list[Producer], left: list[Key]) -> None:
    posted = {key: one for producer in producers for key, one in producer.posted.items()}
    last_end = max(end for _, end, _ in purger.purges)
    kept = {
        key for key, one in posted.items() if one.acknowledged is not None and one.sent > last_end
    }
    assert kept <= set(left)
    answered = [began for began, _, was_answered in purger.purges if was_answered]
    assert answered
    for key in left:
        when = posted[key].acknowledged
        assert when is None or when > max(answered), key
