"""A queue full of delayed messages costs nobody anything, however many claim from it."""

from __future__ import annotations

from collections.abc import Iterator

import psutil
import pytest

from tests.functional.test_push import Subscriber
from tests.server_process import ServerProcess

DELAYED = 30_000
AT_ONCE = 1_000
ROUNDS = 8
CLAIMS = 100


@pytest.fixture
def client(server: ServerProcess) -> Iterator[Subscriber]:
    with Subscriber(server.port) as client:
        yield client


def cost_of_claims(server: ServerProcess, client: Subscriber, queue_name: str) -> float:
    """The processor time of the server for claims from a queue that has nothing to claim."""
    times = psutil.Process(server.pid).cpu_times
    began = times()
    for _ in range(CLAIMS):
        answer = client.call('claim_create', queue_name=queue_name, limit=10)
        assert answer.status == 204
    ended = times()
    return float(ended.user + ended.system - began.user - began.system)


def test_claims_cost_the_same_however_many_messages_are_delayed(
    server: ServerProcess, client: Subscriber
) -> None:
    message = {'body': 1, 'ttl': 3600, 'delay': 900}
    for _ in range(DELAYED // AT_ONCE):
        posted = client.call('message_post', queue_name='full', messages=[message] * AT_ONCE)
        assert posted.status == 201
    client.call('message_post', queue_name='empty', messages=[message])
    full = empty = 0.0
    for _ in range(ROUNDS):
        full += cost_of_claims(server, client, 'full')
        empty += cost_of_claims(server, client, 'empty')
    each = 1e6 / (ROUNDS * CLAIMS)
    print(f'a claim: {full * each:.0f} us beside {DELAYED} messages, {empty * each:.0f} beside one')
    # It was fourteen times as much when each claim walked through them.
    assert full < 2 * empty
