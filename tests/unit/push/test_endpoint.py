"""What a connection is told of news by other servers."""

from __future__ import annotations

from typing import Any

import pytest

from zaqar_gevent.api.push import Source
from zaqar_gevent.api.quotas import quotas
from zaqar_gevent.push.endpoint import ConnectionEndpoint
from zaqar_gevent.push.fleet import Fleet
from zaqar_gevent.push.workers import token_in

ORDERS = Source('demo', 'orders')


class Broker:
    """Allows as much as a server does."""

    quotas = quotas()


class PushHub:
    process = '0123abcd'

    """Knows endpoints by their names."""

    broker = Broker()

    def __init__(self) -> None:
        self._fleet = Fleet(lambda new: new)
        self.known: list[ConnectionEndpoint] = []

    def register(self, endpoint: ConnectionEndpoint) -> None:
        self.known.append(endpoint)

    def url_of(self, name: str, source: Source) -> str:
        return self._fleet.sign(f'http://127.0.0.1:1/zaqar_gevent/push/{name}', source)


@pytest.fixture
def endpoint() -> ConnectionEndpoint:
    push_hub: Any = PushHub()
    endpoint = ConnectionEndpoint(push_hub, compact=True)
    recipient: Any = object()
    endpoint.attach(recipient)
    return endpoint


def test_a_subscription_that_is_being_made_is_not_said_to_be_gone(
    endpoint: ConnectionEndpoint,
) -> None:
    """Its row is in the store before this process knows its id: others must not remove it."""
    token = token_in(endpoint.url_for(ORDERS))
    assert endpoint.news(token, 'orders', 0)


def test_what_was_never_subscribed_is_gone(endpoint: ConnectionEndpoint) -> None:
    token = token_in(endpoint.url_for(ORDERS))
    name, _, signature = token.partition('-')
    for other in (name, f'{name}-', f'{name}-{signature[:-1]}', signature, ''):
        assert not endpoint.news(other, 'orders', 0)
