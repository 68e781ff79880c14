"""Where WebSockets do not get through the client is on REST, and loses nothing by it."""

from __future__ import annotations

import collections
import itertools
import threading
import time
import uuid

import pytest

from tests.client.waiting import wait_until
from tests.intermediaries import Intermediary
from tests.server_process import ServerProcess
from zaqar_gevent.client import Client

MESSAGES = 5000
BATCH = 50
# A thousand messages a second.
PACE_SECONDS = 0.05
# After three seconds without a word a handshake is given up; on a busy machine more time passes
# until that shows. When exactly the client gives up is tested with a clock of the tests' own.
FALLBACK_SECONDS = 3.0 + 20.0
RETRY_SECONDS = 1.0
PATIENCE_SECONDS = 60.0
CUT_SECONDS = 0.5
IN_THE_WAY = ('strip', 'swallow', 'cut', 'buffer', 'stall')


class Traffic:
    """Numbers that a client posts to a queue, and receives from it, each in a thread.

    posted: how many. received: those that have come, in their order.
    """

    def __init__(self, client: Client) -> None:
        self._queue = client.queue('numbers')
        self._queue.create()
        self._subscription = self._queue.subscribe(marker='')
        self._over = threading.Event()
        self.posted = 0
        self.received: list[int] = []
        self._threads = [threading.Thread(target=self._post), threading.Thread(target=self._read)]
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        """Post until it is enough, receive what is to come, and end."""
        self._over.set()
        self._threads[0].join(PATIENCE_SECONDS)
        wait_until(lambda: len(self.received) >= self.posted, PATIENCE_SECONDS, 'all has come')
        self._subscription.close()
        self._threads[1].join(PATIENCE_SECONDS)
        assert not any(thread.is_alive() for thread in self._threads)

    def _post(self) -> None:
        while self.posted < MESSAGES or not self._over.is_set():
            numbers = range(self.posted, self.posted + BATCH)
            assert len(self._queue.post(list(numbers), ttl=600)) == BATCH
            self.posted += BATCH
            self._over.wait(PACE_SECONDS)

    def _read(self) -> None:
        for message in self._subscription:
            self.received.append(message.body)


@pytest.mark.parametrize('mode', IN_THE_WAY)
def test_each_message_comes_once_and_in_order_whatever_is_in_the_way(
    server: ServerProcess, mode: str
) -> None:
    go_there_and_back(server, mode, CUT_SECONDS)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_each_message_comes_once_and_in_order_where_connections_last_five_seconds(
    server: ServerProcess,
) -> None:
    go_there_and_back(server, 'cut', 5.0)


def test_a_consumer_gets_everything_done_whatever_is_in_the_way(server: ServerProcess) -> None:
    """What it has in hand when a connection dies may come again, and nothing else."""
    count, credit, switches = 1000, 10, 4
    worked: collections.Counter[int] = collections.Counter()
    with (
        Intermediary(server.port) as between,
        Client(between.url, project=uuid.uuid4().hex, retry_seconds=RETRY_SECONDS) as client,
    ):
        queue = client.queue('work')
        for start in range(0, count, BATCH):
            queue.post(list(range(start, start + BATCH)), ttl=600)
        with queue.consume(credit=credit) as consumer:
            for state, way in itertools.islice(
                itertools.cycle([('websocket', 'strip'), ('polling', 'open')]), switches
            ):
                wait_for(client, state, RETRY_SECONDS + 20.0)
                for message in itertools.islice(consumer, count // 5):
                    worked[message.body] += 1
                    message.ack()
                between.switch(way)
            while len(worked) < count:
                message = consumer.receive(PATIENCE_SECONDS)
                assert message is not None
                worked[message.body] += 1
                message.ack()
        assert queue.stats()['messages']['total'] == 0
    twice = worked.total() - count
    assert twice <= switches * credit
    print(f'{twice} of {worked.total()} worked on again')


def go_there_and_back(server: ServerProcess, mode: str, cut_seconds: float) -> None:
    """The way is barred, becomes free, is barred again and becomes free again."""
    # Connections that are cut have to be cut three times before it is noticed.
    barred = FALLBACK_SECONDS + (3 * cut_seconds if mode == 'cut' else 0)
    free = RETRY_SECONDS + 20.0
    with Intermediary(server.port, mode, seconds=cut_seconds) as between:
        client = Client(between.url, project=uuid.uuid4().hex, retry_seconds=RETRY_SECONDS)
        with client:
            began = time.monotonic()
            traffic = Traffic(client)
            wait_for(client, 'polling', barred - (time.monotonic() - began))
            times = [time.monotonic() - began]
            for way, state, seconds in (
                ('open', 'websocket', free),
                (mode, 'polling', barred),
                ('open', 'websocket', free),
            ):
                time.sleep(1)  # of traffic in this state
                between.switch(way)
                times.append(wait_for(client, state, seconds))
            traffic.finish()
        assert traffic.received == list(range(traffic.posted))
        print(mode, f'{traffic.posted} messages', [f'{one:.2f} s' for one in times])


def wait_for(client: Client, state: str, seconds: float) -> float:
    return wait_until(lambda: client.state == state, seconds, f'the client is {state}')
