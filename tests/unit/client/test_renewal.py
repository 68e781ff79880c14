"""Leases that the client keeps itself: renewed in time, lost, and given back."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from websockets.sync.server import ServerConnection

from tests.client.waiting import wait_until
from tests.unit.client.scripted_server import ScriptedServer, dies
from zaqar_gevent.client import Client, ConnectionLost, Consumer, NotFound
from zaqar_gevent.client.sync.renewal import ClaimRenewer

GONE = (404, {'code': 'not_found', 'title': 'Not found', 'description': 'No such claim.'})


class Claims:
    """The claims of a server, each of so many seconds; what was done with them, in order."""

    def __init__(self, seconds: float = 0.2) -> None:
        self.seconds = seconds
        self.renewed: list[str] = []
        self.lost: list[str] = []
        self.released: list[str] = []
        self.outcome: Callable[[], None] = lambda: None
        self.renewer = ClaimRenewer(self._renew, self.lost.append, self._release)

    def _renew(self, claim_id: str) -> float:
        self.outcome()
        self.renewed.append(claim_id)
        return self.seconds

    def _release(self, claim_id: str) -> None:
        self.outcome()
        self.released.append(claim_id)


@pytest.fixture
def claims() -> Iterator[Claims]:
    claims = Claims()
    yield claims
    claims.renewer.close()


def renewers() -> int:
    return sum(thread.name == 'zaqar-renewal' for thread in threading.enumerate())


def test_claims_are_renewed_until_they_are_forgotten(claims: Claims) -> None:
    began = time.monotonic()
    claims.renewer.start('one', 1.0)
    claims.renewer.start('other', 0)
    wait_until(lambda: claims.renewed.count('one') >= 3, 60, 'it is renewed')
    assert time.monotonic() - began >= 0.3
    assert claims.renewed[0] == 'other'
    claims.renewer.stop('one')
    claims.renewer.stop('other')
    wait_until(lambda: renewers() == 0, 60, 'there is no thread without a claim')
    claims.renewer.start('third', 0)
    wait_until(lambda: 'third' in claims.renewed, 60, 'it is begun again')


def test_a_claim_that_has_ended_is_lost_and_not_asked_for_again(claims: Claims) -> None:
    def ended() -> None:
        raise NotFound(*GONE[:1], **GONE[1])

    claims.outcome = ended
    claims.renewer.start('one', 0)
    wait_until(lambda: claims.lost == ['one'], 60, 'it is lost')
    wait_until(lambda: renewers() == 0, 60, 'there is no thread')
    assert claims.renewed == []


def test_trouble_is_no_reason_to_give_up(claims: Claims) -> None:
    def unreachable() -> None:
        claims.outcome = lambda: None
        raise ConnectionLost('once')

    claims.outcome = unreachable
    claims.renewer.start('one', 0)
    wait_until(lambda: claims.renewed == ['one'], 60, 'it is renewed later')
    claims.outcome = unreachable
    claims.renewer.abandon('other')
    wait_until(lambda: claims.released == ['other'], 60, 'it is given back later')
    assert claims.lost == []


def test_what_is_still_to_be_given_back_is_told_at_the_end(claims: Claims) -> None:
    def unreachable() -> None:
        raise ConnectionLost('always')

    claims.outcome = unreachable
    claims.renewer.abandon('one')
    assert claims.renewer.close() == {'one'}
    claims.renewer.abandon('late')
    claims.renewer.start('late', 0)
    wait_until(lambda: renewers() == 0, 60, 'there is no thread')
    assert claims.released == []


class Store:
    """A server's queue with two messages, pushed to the first consumer that there is.

    outlives: whether claims outlive the connection that they were made for.
    """

    def __init__(self, *, outlives: bool) -> None:
        self._outlives = outlives
        self.connections: list[ServerConnection] = []

    def __call__(
        self, connection: ServerConnection, request: dict[str, Any]
    ) -> tuple[int, Any] | None:
        body = request.get('body') or {}
        action = request['action']
        if action == 'queue_consume':
            return self._consume(connection, request['id'])
        if action == 'message_ack' and len(self.connections) == 1:
            dies(connection, request)
            return None
        if action in ('message_delete', 'claim_update') and body['claim_id'] in ('c1', 'c2'):
            return (204, {}) if self._outlives else GONE
        return 204, {}

    def _consume(self, connection: ServerConnection, ident: int) -> None:
        self.connections.append(connection)
        answer = {'id': ident, 'status': 201, 'body': {'consumer_id': f'{len(self.connections)}'}}
        connection.send(json.dumps(answer))
        for number in (1, 2) if len(self.connections) == 1 else ():
            message = {'id': f'm{number}', 'claim_id': f'c{number}', 'body': number}
            push = {'push': 'message', 'consumer_id': '1', 'queue_name': 'q', 'message': message}
            connection.send(json.dumps(push))


def consuming(client: Client) -> Consumer:
    return client.queue('q').consume(credit=2, ttl=60)


@pytest.mark.parametrize('outlives', [True, False])
def test_an_acknowledgement_over_which_the_connection_dies_is_made_by_the_claim(
    outlives: bool,
) -> None:
    with (
        ScriptedServer(Store(outlives=outlives)) as server,
        Client(server.url, project='p', transport='websocket', encoding='json') as client,
        consuming(client) as consumer,
    ):
        message = consumer.receive(10)
        assert message is not None
        wait_until(lambda: consumer.unsettled == 2, 60, 'both have come')
        assert message.ack() is outlives
        wait_until(lambda: bool(server.asked('claim_delete')), 60, 'the other is given back')
        assert consumer.unsettled == 0
    [deleted] = server.asked('message_delete')
    assert deleted['body'] == {'queue_name': 'q', 'message_id': 'm1', 'claim_id': 'c1'}
    # Once more by the consumer that is closed, whose renewer was not answered yet.
    assert {one['body']['claim_id'] for one in server.asked('claim_delete')} == {'c2'}


@pytest.mark.parametrize('outlives', [True, False])
def test_a_lease_whose_connection_died_is_renewed_if_it_is_still_there(outlives: bool) -> None:
    store = Store(outlives=outlives)
    with (
        ScriptedServer(store) as server,
        Client(server.url, project='p', transport='websocket', encoding='json') as client,
        consuming(client) as consumer,
    ):
        taken = [consumer.receive(10), consumer.receive(10)]
        store.connections[0].socket.close()
        wait_until(lambda: len(server.asked('claim_update')) == 2, 60, 'both are renewed')
        wait_until(lambda: consumer.unsettled == (2 if outlives else 0), 60, 'it is known')
        assert [one.ack() for one in taken if one is not None] == [outlives, outlives]
