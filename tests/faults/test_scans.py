"""Requests that make the server look at much of what a stranger has stored."""

from __future__ import annotations

import contextlib
import pathlib
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.callers import Identity, RestCaller, new_identity
from tests.client.waiting import wait_until
from tests.faults.light_load import PROMPT, LightLoad
from tests.faults.memory import MB, settled
from tests.redis_process import ON_REDIS, RedisProcess
from tests.server_process import ServerProcess

QUEUES = 600
METADATA_BYTES = 60_000
FILTERS = 100
AT_ONCE = 4
SOON = 5.0
"""Seconds; on a busy machine. They were 30 where lists of others were waited for."""
OTHERS = new_identity()
LONG_QUEUES = 1200
"""So many that the fastest machine takes longer than the shortest timeout to look through them."""
SCAN_TIMEOUT = 0.1
CONFIG = f'[drivers:transport:gevent]\nscan_timeout = {SCAN_TIMEOUT}\n'


STORES = ('embedded', 'redis')


def store_config(request: pytest.FixtureRequest) -> str:
    """The configuration that chooses the store which a test is for."""
    if request.param == 'embedded':
        return ''
    redis: RedisProcess = request.getfixturevalue('redis')
    redis.client.flushall()
    return ON_REDIS.format(redis=redis.patient_uri)


@pytest.fixture(scope='module', params=['embedded', pytest.param('redis', marks=pytest.mark.slow)])
def stored(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    directory = tmp_path_factory.mktemp('server')
    with ServerProcess(directory, config=store_config(request)) as process:
        light = RestCaller(process.url, identity=OTHERS)
        for number in range(3):
            light.call('queue_create', queue_name=f'light-{number}')
        yield process


@pytest.fixture(scope='module')
def stranger(stored: ServerProcess) -> RestCaller:
    """Somebody with many queues whose metadata are long."""
    rest = RestCaller(stored.url, identity=new_identity())
    fill(rest, QUEUES)
    return rest


def fill(rest: RestCaller, queues: int) -> None:
    """Create queues with long metadata."""
    more = {f'fill-{number}': 'x' * 10 for number in range(METADATA_BYTES // 30)}
    metadata = {f'key-{number}': number for number in range(FILTERS)} | more
    with ThreadPoolExecutor(8) as pool:

        def create(number: int) -> int:
            caller = RestCaller(rest.url, identity=rest.identity)
            named = {'queue_name': f'queue-{number:04}', 'metadata': metadata}
            return int(caller.call('queue_create', **named).status)

        assert set(pool.map(create, range(queues))) == {201}


@contextlib.contextmanager
def repeated(server: ServerProcess, identity: Identity, ask: Callable[[Any], Any]) -> Iterator[Any]:
    """Have several clients ask again and again meanwhile; the answers that they got."""
    answers: list[Any] = []
    is_over = threading.Event()

    def ask_on() -> None:
        caller = RestCaller(server.url, identity=identity)
        while not is_over.is_set():
            answers.append(ask(caller))

    threads = [threading.Thread(target=ask_on) for _ in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


def list_for(seconds: float, server: ServerProcess) -> list[float]:
    """Have the other project list its queues for some time; how long each list took."""
    rest = RestCaller(server.url, identity=OTHERS)
    durations = []
    ends_at = time.monotonic() + seconds
    while (began := time.monotonic()) < ends_at:
        assert rest.call('queue_list').status == 200
        durations.append(time.monotonic() - began)
        time.sleep(0.005)
    return durations


def describe(durations: list[float]) -> str:
    median, p99 = (statistics.quantiles(durations, n=100)[at] for at in (49, 98))
    figures = (1000 * figure for figure in (median, p99, max(durations)))
    return 'median {:.1f}, p99 {:.1f}, longest {:.1f} ms'.format(*figures)


def list_filtered(caller: RestCaller) -> Any:
    """A page for which all queues are looked at, and all filters but one are met."""
    filters = {f'key-{number}': number for number in range(FILTERS - 1)} | {'key-99': -1}
    return caller.call('queue_list', limit=20, metadata=filters)


def list_detailed(caller: RestCaller) -> Any:
    return caller.call('queue_list', limit=20, detailed=True)


def test_lists_with_filters_do_not_hold_up_those_of_others(
    stored: ServerProcess, stranger: RestCaller
) -> None:
    before = settled(stored.pid)
    with repeated(stored, stranger.identity, list_filtered) as answers:
        durations = list_for(3, stored)
    print(f'others: {describe(durations)}')
    assert {answer.status for answer in answers} == {200}
    assert {tuple(answer.body['queues']) for answer in answers} == {()}
    assert statistics.quantiles(durations, n=100)[98] < SOON
    growth = settled(stored.pid) - before
    print(f'{len(answers)} lists; memory grows by {growth / MB:.1f} MB')
    assert growth < 100 * MB


def test_too_many_filters_are_refused(stored: ServerProcess, stranger: RestCaller) -> None:
    filters = {f'key-{number}': number for number in range(FILTERS + 1)}
    refused = stranger.call('queue_list', metadata=filters)
    assert refused.status == 400
    assert f'at most {FILTERS}' in str(refused.body)


def test_detailed_lists_do_not_hold_up_others(stored: ServerProcess, stranger: RestCaller) -> None:
    with (
        repeated(stored, stranger.identity, list_detailed) as answers,
        LightLoad(stored.port) as others,
    ):
        for _ in others.seconds(2):
            time.sleep(0.1)
    assert {answer.status for answer in answers} == {200}
    assert others.p99 < PROMPT


@pytest.fixture(params=STORES)
def impatient(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[ServerProcess]:
    """A server whose reads may take no time."""
    with ServerProcess(tmp_path, config=CONFIG + store_config(request)) as server:
        yield server


def test_a_list_that_takes_too_long_is_answered_with_503_that_says_so(
    impatient: ServerProcess,
) -> None:
    rest = RestCaller(impatient.url)
    fill(rest, LONG_QUEUES)
    refused = rest.call('queue_list', metadata={'absent': 1})
    assert refused.status == 503
    assert 'scan_timeout' in str(refused.body)
    assert f'{SCAN_TIMEOUT} s' in str(refused.body)
    # A busy machine may take as long for a short one, now and then.
    wait_until(lambda: rest.call('queue_list', limit=5).status == 200, 60, 'a short list')
    assert rest.call('ping_node').status == 204
    impatient.stop()
    assert not [line for line in impatient.output if 'ERROR' in line]
