"""A process of a fleet on one Redis, which works at random on a queue until it is killed.

    python -m tests.storage.fleet_worker DRIVER URI QUEUE LOG

Each line of LOG is what it has done or is about to do: JSON, written before it counts.
"""

from __future__ import annotations

import json
import pathlib
import random
import sys
import time
from types import SimpleNamespace
from typing import Any

import gevent
from zaqar.storage import errors, pipeline

from tests.storage.conftest import Store, load, open_drivers
from zaqar_gevent.storage import drivers

LEASE = 3
"""Seconds for which a claim holds its messages."""
GREENLETS = 4


def main(name: str, uri: str, queue: str, path: str) -> None:
    gevent.get_hub()
    log_path = pathlib.Path(path)
    directory = log_path.with_suffix('')
    directory.mkdir()
    conf = load(name, SimpleNamespace(patient_uri=uri), directory)  # type: ignore[arg-type]
    driver, control = open_drivers(name, conf)
    data = pipeline.DataDriver(conf, driver, control)
    drivers.protect(data)
    drivers.protect_control(control)
    store = Store(name, data, control, None)
    with log_path.open('a') as log:

        def note(**event: Any) -> None:
            log.write(json.dumps(event) + '\n')
            log.flush()

        work = work_natively if name == 'native' else work_as_upstream
        gevent.joinall([gevent.spawn(work, store, queue, note) for _ in range(GREENLETS)])


def work_natively(store: Store, queue: str, note: Any) -> None:
    while True:
        if random.random() < 0.3:
            note(posted=store.post(queue, *range(random.randint(1, 5))))
            continue
        began = time.time()
        claim, messages = store.claim(queue, limit=random.randint(1, 5), ttl=LEASE)
        if messages:
            ids = [one['id'] for one in messages]
            held = {'claim': claim, 'ids': ids, 'since': time.time()}
            note(held=held, until=int(began) + LEASE)
            settle(store, queue, note, claim, ids)
        gevent.sleep(random.random() * 0.02)


def settle(store: Store, queue: str, note: Any, claim: str, ids: list[str]) -> None:
    """Do one of what a worker may do with the messages that it holds."""
    choice = random.random()
    if choice < 0.1:
        # It forgets them.
        return
    if choice < 0.2:
        began = time.time()
        try:
            store.claims.update(queue, claim, {'ttl': LEASE, 'grace': 60})
        except errors.ClaimDoesNotExist:
            return
        note(renewed=claim, until=int(began) + LEASE)
    if choice < 0.35:
        note(released=claim, at=time.time())
        store.claims.delete(queue, claim)
        return
    note(deleting=ids, claim=claim, at=time.time())
    try:
        store.messages.bulk_delete(queue, ids, claim_ids=[claim])
    except errors.ExceptionBase:
        # The lease was over.
        return
    note(deleted=ids)


def work_as_upstream(store: Store, queue: str, note: Any) -> None:
    while True:
        choice = random.random()
        if choice < 0.4:
            note(posted=store.post(queue, *range(random.randint(1, 3))))
        elif choice < 0.7:
            for body in store.list(queue, limit=20):
                assert body in range(5)
        else:
            counts = store.queues.stats(queue)['messages']
            assert counts['total'] >= 0
        gevent.sleep(random.random() * 0.05)


if __name__ == '__main__':
    main(*sys.argv[1:])
