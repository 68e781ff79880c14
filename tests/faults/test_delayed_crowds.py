"""A queue full of delayed messages costs nobody anything, however many claim from it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.functional.test_push import Subscriber
from tests.server_process import ServerProcess

DELAYED = 30_000
AT_ONCE = 1_000
ROUNDS = 16
ROUND_SECONDS = 0.1


@pytest.fixture
def client(server: ServerProcess) -> Iterator[Subscriber]:
    with Subscriber(server.port) as client:
        yield client


def claims_per_second(client: Subscriber, queue_name: str) -> float:
    """How often a queue can be claimed from that has nothing to claim."""
    count = 0
    began = time.perf_counter()
    while time.perf_counter() < began + ROUND_SECONDS:
        answer = client.call('claim_create', queue_name=queue_name, limit=10)
        assert answer.status == 204
        count += 1
    return count / (time.perf_counter() - began)


def test_claims_cost_the_same_however_many_messages_are_delayed(client: Subscriber) -> None:
    message = {'body': 1, 'ttl': 3600, 'delay': 900}
    for _ in range(DELAYED // AT_ONCE):
        posted = client.call('message_post', queue_name='full', messages=[message] * AT_ONCE)
        assert posted.status == 201
    client.call('message_post', queue_name='empty', messages=[message])
    # What else the machine does takes from some rounds, and not from the best ones.
    full = empty = 0.0
    for _ in range(ROUNDS):
        full = max(full, claims_per_second(client, 'full'))
        empty = max(empty, claims_per_second(client, 'empty'))
    print(f'claims a second: {full:.0f} beside {DELAYED} delayed messages, {empty:.0f} beside one')
    # It was a fourteenth when each claim walked through them.
    assert full > empty / 2
