"""Connections that subscribe themselves are pushed what is posted: each message once, in order."""

from __future__ import annotations

import collections
import contextlib
import pathlib
import random
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from tests.callers import TRANSPORTS, Answer, Identity, RestCaller, connect, new_identity
from tests.faults.client import COMPACT, DEFAULT, DIALECTS, Client, Dialect
from tests.faults.frames import Opcode, frame
from tests.server_process import ServerProcess

COMPACTS = tuple(dialect for dialect in DIALECTS if dialect.subprotocol)
PATIENCE_SECONDS = 10
RESET = struct.pack('ii', 1, 0)
AWKWARD = [None, '', 0, -1.5, 2**63 - 1, [], {}, 'ß→\u2028"\\\x00', {'a': [{'b': None}]}, 'x' * 200_000]


class Subscriber(Client):
    """A client that keeps what it is pushed apart from what it is answered.

    pushed: what has come and has not been looked at yet.
    """

    def __init__(self, port: int, dialect: Dialect = COMPACT, **options: Any) -> None:
        super().__init__(port, dialect, **options)
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
        """Subscribe this connection to a queue; the id of the subscription."""
        status, body = self.call('subscription_create', queue_name=queue_name, **more)
        assert status == 201, body
        subscription_id: str = body['subscription_id']
        return subscription_id

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

    PROGRAM = (
        'import sys; from gevent import monkey; monkey.patch_all(); '
        'from zaqar.transport import validation as limits; '
        'limits.MIN_CLAIM_TTL = limits.MIN_SUBSCRIPTION_TTL = 1; '
        'from zaqar_gevent.cmd import main; sys.exit(main())'
    )

    def __init__(self, state_path: pathlib.Path, *options: str, **more: Any) -> None:
        super().__init__(state_path, *options, **more)
        self._command[:3] = [sys.executable, '-c', self.PROGRAM]


def is_push(message: Any) -> bool:
    return 'push' in message or 'Message_Type' in message


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
    """All messages of a queue, in its order."""
    found: list[Any] = []
    page: dict[str, str] = {}
    everything = {'echo': True, 'include_claimed': True, 'limit': 20}
    while True:
        listed = caller.call('message_list', queue_name=queue_name, **everything, **page).body
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
