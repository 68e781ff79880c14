"""Processes of both drivers on one Redis, some of which are killed."""

from __future__ import annotations

import collections
import itertools
import json
import pathlib
import subprocess
import sys
import time
from typing import Any

import gevent
import pytest
from zaqar.storage import pipeline

from tests.redis_process import RedisProcess
from tests.storage.conftest import Store, load, open_drivers
from tests.storage.fleet_worker import LEASE
from zaqar_gevent.storage import drivers

SECONDS = 60
KILL_EVERY = 3.0
WORKERS = ('native', 'native', 'upstream', 'upstream')


class Fleet:
    """The processes, and what they have noted."""

    def __init__(self, redis: RedisProcess, queue: str, directory: pathlib.Path) -> None:
        self._redis, self._queue, self._directory = redis, queue, directory
        self._logs: list[pathlib.Path] = []
        self._processes: list[tuple[str, subprocess.Popen[bytes], pathlib.Path]] = []

    def start(self, name: str) -> None:
        log = self._directory / f'{len(self._logs)}.log'
        self._logs.append(log)
        command = [
            sys.executable,
            '-m',
            'tests.storage.fleet_worker',
            name,
            self._redis.patient_uri,
        ]
        process = subprocess.Popen([*command, self._queue, str(log)])
        self._processes.append((name, process, log))

    def replace_first(self) -> None:
        """Kill the process that has run longest, and start another of its kind."""
        name, process, log = self._processes.pop(0)
        # On a busy machine it may take longer to start than it is to run.
        while process.poll() is None and not (log.exists() and log.stat().st_size):
            time.sleep(0.05)
        assert process.poll() is None, 'it has ended by itself'
        process.kill()
        process.wait()
        self.start(name)

    def kill(self) -> None:
        for _, process, _ in self._processes:
            assert process.poll() is None, 'it has ended by itself'
            process.kill()
            process.wait()

    def events(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for log in self._logs:
            # The last line may not be complete.
            lines = log.read_text().splitlines(keepends=True) if log.exists() else []
            found += [json.loads(line) for line in lines if line.endswith('\n')]
        return found


def holds_of(events: list[dict[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """When each message was certainly held, by each of its claims."""
    ends: dict[str, float] = {}
    holds: dict[str, list[tuple[float, str]]] = collections.defaultdict(list)
    for event in events:
        if 'held' in event:
            held = event['held']
            ends[held['claim']] = event['until']
            for one in held['ids']:
                holds[one].append((held['since'], held['claim']))
        elif 'renewed' in event:
            ends[event['renewed']] = event['until']
        elif 'released' in event:
            ends[event['released']] = min(ends[event['released']], event['at'])
        elif 'deleting' in event:
            ends[event['claim']] = min(ends[event['claim']], event['at'])
    return {
        one: sorted((since, ends[claim]) for since, claim in of_one)
        for one, of_one in holds.items()
    }


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_only_the_native_driver_claims_is_never_lost_nor_held_twice(
    redis: RedisProcess, tmp_path: pathlib.Path
) -> None:
    gevent.get_hub()
    conf = load('native', redis, tmp_path)
    driver, control = open_drivers('native', conf)
    data = pipeline.DataDriver(conf, driver, control)
    drivers.protect(data)
    store = Store('native', data, control, redis)
    queue = store.queue()
    fleet = Fleet(redis, queue, tmp_path)
    for name in WORKERS:
        fleet.start(name)
    ends = time.monotonic() + SECONDS
    while time.monotonic() < ends:
        time.sleep(KILL_EVERY)
        fleet.replace_first()
    time.sleep(KILL_EVERY)
    fleet.kill()
    time.sleep(LEASE + 1)
    drained = []
    while messages := store.claim(queue, limit=20)[1]:
        drained += [one['id'] for one in messages]
    events = fleet.events()
    posted = {one for event in events for one in event.get('posted', ())}
    deleting = {one for event in events for one in event.get('deleting', ())}
    deleted = {one for event in events for one in event.get('deleted', ())}
    print(f'{len(posted)} posted, {len(deleted)} deleted, {len(drained)} left')
    assert len(deleted) > 100
    assert len(drained) == len(set(drained))
    assert posted - deleting - set(drained) == set(), 'lost'
    assert deleted & set(drained) == set(), 'come back'
    for one, holds in holds_of(events).items():
        for (_, end), (following, _) in itertools.pairwise(holds):
            assert following >= end, f'{one} was held twice: {holds}'
    assert store.counts(queue) == (len(drained), 0)
    data.close()
    control.close()
