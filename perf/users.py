"""Users of a load test: those who post, work and watch, over REST and over WebSocket.

Bodies carry the time of their post, so that the way to whoever gets them can be timed: it is in
Locust's statistics as `push`, beside the requests. Everybody shares a few queues of one project.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable
from typing import Any

import gevent
from gevent.queue import Empty
from locust import FastHttpUser, User, between, constant, events, task

from perf.workloads import body_of
from perf.ws4py_client import Client

QUEUES = [f'load-{number}' for number in range(8)]
PROJECT = 'load'
TTL = 300
TIMEOUT = 30.0
BODY_BYTES = (100, 100, 100, 1000, 4096)


class Refused(Exception):
    """The server answered with an error."""


def new_headers() -> dict[str, str]:
    return {'Client-ID': str(uuid.uuid4()), 'X-Project-ID': PROJECT}


def new_messages() -> list[dict[str, Any]]:
    """One message mostly, several sometimes."""
    count = random.choice((1, 1, 1, 5))
    body = body_of(random.choice(BODY_BYTES))
    return [{'ttl': TTL, 'body': {**body, 'posted': time.time()}}] * count


def record(kind: str, name: str, seconds: float, size: int, error: Exception | None = None) -> None:
    """Put a timing into Locust's statistics."""
    events.request.fire(
        request_type=kind,
        name=name,
        response_time=seconds * 1e3,
        response_length=size,
        exception=error,
        context={},
    )


class RestUser(FastHttpUser):
    """Somebody with an HTTP client. Requests are named by their route."""

    abstract = True
    connection_timeout = network_timeout = TIMEOUT

    def on_start(self) -> None:
        self.queue = random.choice(QUEUES)
        self.headers = new_headers()
        self.ask('PUT', f'/v2/queues/{self.queue}', 'queue')

    def ask(self, method: str, path: str, name: str, json: Any = None) -> Any:
        """A request, counted under `name`; gives the answer's document, None where it has none.

        Raises `Refused` where it is none of success, after it was counted as a failure.
        """
        answer = self.client.request(method, path, name=name, json=json, headers=self.headers)
        if not 200 <= answer.status_code < 300:
            raise Refused(f'{answer.status_code} {answer.text}')
        return answer.json() if answer.text else None

    def path(self, rest: str) -> str:
        return f'/v2/queues/{self.queue}/{rest}'


class RestProducer(RestUser):
    """Posts events over REST, and looks after its queue now and then."""

    weight = 4
    wait_time = between(0.05, 0.3)

    @task(10)
    def post(self) -> None:
        self.ask('POST', self.path('messages'), 'messages', {'messages': new_messages()})

    @task(1)
    def look(self) -> None:
        self.ask('GET', self.path('stats'), 'stats')


class RestWorker(RestUser):
    """Claims what there is, and deletes each message when its work is done."""

    weight = 2
    wait_time = between(0.05, 0.3)

    @task
    def work(self) -> None:
        claim = {'ttl': 60, 'grace': 60}
        claimed = self.ask('POST', self.path('claims?limit=10'), 'claims', claim)
        for message in (claimed or {}).get('messages', ()):
            self.ask('DELETE', message['href'], 'messages/ID?claim_id')


class RestReader(RestUser):
    """A page that polls: lists what is new, from where it was."""

    weight = 2
    wait_time = between(0.5, 1.5)

    def on_start(self) -> None:
        super().on_start()
        self.next_page = self.path('messages?limit=20&echo=true')

    @task
    def read(self) -> None:
        page = self.ask('GET', self.next_page, 'messages')
        # Where there is nothing new, there is no next page either.
        if page['links']:
            self.next_page = page['links'][0]['href']


class WebSocketUser(User):
    """Somebody with a connection of its own, half of them in MsgPack, half in JSON."""

    abstract = True

    def on_start(self) -> None:
        self.queue = random.choice(QUEUES)
        self.binary = random.random() < 0.5
        self.kind = 'WS msgpack' if self.binary else 'WS json'
        url = self.host.replace('http', 'ws', 1) + '/v2/ws'
        self.connection: Client = self.timed(
            'connect', lambda: Client(url, new_headers(), binary=self.binary, timeout=TIMEOUT)
        )
        self.call('queue_create', queue_name=self.queue)

    def on_stop(self) -> None:
        self.connection.leave()

    def timed(self, name: str, act: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        try:
            result = act()
        except Exception as error:
            record(self.kind, name, time.perf_counter() - began, 0, error)
            raise
        record(self.kind, name, time.perf_counter() - began, 0)
        return result

    def call(self, action: str, **body: Any) -> Any:
        """Ask, put the timing into the statistics, and give the answer's body.

        Raises `Refused`, after it was counted as a failure.
        """
        began = time.perf_counter()
        try:
            answer, size = self.connection.call(action, **body)
            if answer['status'] >= 400:
                raise Refused(f'{answer["status"]} {answer["body"]}')
        except (Exception, gevent.Timeout) as error:
            failure = error if isinstance(error, Exception) else TimeoutError(str(error))
            record(self.kind, action, time.perf_counter() - began, 0, failure)
            raise failure from None
        record(self.kind, action, time.perf_counter() - began, size)
        return answer['body']

    def next_push(self, seconds: float) -> dict[str, Any] | None:
        """The next message that is pushed, its way from the post timed; None if none comes."""
        try:
            push = self.connection.pushes.get(timeout=seconds)
        except Empty:
            return None
        if push['push'] == 'message':
            late = max(0.0, time.time() - push['message']['body']['posted'])
            record(self.kind, 'push', late, 0)
        elif push['push'] == 'paused':
            identity = {'subscription_id': push['subscription_id'], 'queue_name': self.queue}
            self.call('subscription_resume', **identity, marker=push['marker'])
        return push


class WebSocketProducer(WebSocketUser):
    """Posts events over its connection."""

    weight = 6
    wait_time = between(0.05, 0.3)

    @task(10)
    def post(self) -> None:
        self.call('message_post', queue_name=self.queue, messages=new_messages())

    @task(1)
    def look(self) -> None:
        self.call('queue_get_stats', queue_name=self.queue)


class WebSocketWorker(WebSocketUser):
    """Claims what there is, and deletes it together."""

    weight = 2
    wait_time = between(0.05, 0.3)

    @task
    def work(self) -> None:
        claim = self.call('claim_create', queue_name=self.queue, limit=10, ttl=60, grace=60)
        found = [message['id'] for message in (claim or {}).get('messages', ())]
        if found:
            self.call('message_delete_many', queue_name=self.queue, message_ids=found)


class Consumer(WebSocketUser):
    """Is pushed messages to work on, and acknowledges each."""

    weight = 2
    wait_time = constant(0)

    def on_start(self) -> None:
        super().on_start()
        answer = self.call('queue_consume', queue_name=self.queue, credit=10)
        self.consumer = answer['consumer_id']

    @task
    def consume(self) -> None:
        push = self.next_push(1.0)
        if push is not None and push['push'] == 'message':
            ids = [push['message']['id']]
            self.call('message_ack', consumer_id=self.consumer, message_ids=ids)


class Watcher(WebSocketUser):
    """A browser that shows a queue: it is pushed everything, and asks for nothing."""

    weight = 8
    wait_time = constant(0)

    def on_start(self) -> None:
        super().on_start()
        self.call('subscription_create', queue_name=self.queue)

    @task
    def watch(self) -> None:
        self.next_push(1.0)
