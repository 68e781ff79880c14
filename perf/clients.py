"""What Python clients cost: ours, blocking and asyncio, beside nats.py and kombu.

    python -m perf.clients [--seconds 2] [--rounds 3]

Each task is a program of its own on the client's core, the server is on the other. All wait until
a message is safe: ours and NATS with an fsync for each acknowledgement, RabbitMQ by publisher
confirms of persistent messages. What is not installed is left out. Writes `results/clients.json`.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from perf import results, tables
from perf.brokers import Nats, Rabbit
from perf.client_tasks import TASKS, THREADS
from perf.machine import CLIENT_CORE, end_orderly, on_core, processor_time
from perf.servers import Fleet

_SECONDS_TO_START = 60
_IMPORT = """
import psutil, time
began = time.process_time()
from {module} import {name}
print(time.process_time() - began, psutil.Process().memory_info().rss)
"""


class Row(NamedTuple):
    """A task, as a reader is to be told of it. pids: of the server."""

    client: str
    what: str
    task: str
    url: str
    pids: tuple[int, ...]


def rows(fleet: Fleet) -> list[Row]:
    """All that run here."""
    server = fleet.own()
    of_ours = functools.partial(Row, url=f'http://127.0.0.1:{server.port}', pids=tuple(server.pids))
    found = [
        of_ours('ours', 'posts, one by one', 'posts_one_by_one'),
        of_ours('ours', f'posts of {THREADS} threads', 'posts_of_threads'),
        of_ours('ours', 'taken, each acknowledgement waited for', 'consumes'),
        of_ours('ours', 'taken, `ack(wait=False)`', 'consumes_without_waiting'),
        of_ours('ours, asyncio', f'posts of {TASKS:,} tasks', 'posts_of_tasks'),
    ]
    if Nats.is_installed():
        nats = Nats(fleet.directory(), durable=True)
        fleet.callback(nats.stop)
        of_nats = functools.partial(
            Row,
            'nats.py, JetStream',
            url=f'nats://127.0.0.1:{nats.tcp_port}',
            pids=tuple(nats.pids),
        )
        found += [
            of_nats(what='posts, one by one', task='nats_posts_one_by_one'),
            of_nats(what=f'posts of {TASKS:,} tasks', task='nats_posts_of_tasks'),
            of_nats(what='taken, each acknowledgement waited for', task='nats_consumes'),
        ]
    if Rabbit.is_installed():
        rabbit = Rabbit(fleet.directory())
        fleet.callback(rabbit.stop)
        url = f'amqp://guest:guest@127.0.0.1:{rabbit.amqp_port}//'
        of_kombu = functools.partial(Row, 'kombu, RabbitMQ', url=url, pids=tuple(rabbit.pids))
        found += [
            of_kombu(what='posts, one by one', task='kombu_posts_one_by_one'),
            of_kombu(what='taken, acknowledgements not waited for', task='kombu_consumes'),
        ]
    return found


def run(row: Row, seconds: float) -> dict[str, float]:
    """What a task has done, and what its server has used."""
    before = processor_time(row.pids)
    command = [sys.executable, '-m', 'perf.client_tasks', row.task, row.url, str(seconds)]
    output = subprocess.run(
        command, stdout=subprocess.PIPE, check=True, timeout=_SECONDS_TO_START + seconds
    ).stdout
    measured: dict[str, float] = json.loads(output)
    return {**measured, 'server': processor_time(row.pids) - before}


def imports(module: str, name: str) -> tuple[float, float]:
    """Seconds of processor time to import a client, and bytes of memory of the program then."""
    command = [sys.executable, '-c', _IMPORT.format(module=module, name=name)]
    seconds, size = subprocess.run(
        command, stdout=subprocess.PIPE, check=True, text=True
    ).stdout.split()
    return float(seconds), float(size)


def measure(seconds: float, rounds: int) -> dict[str, Any]:
    """Every task, in turn, in several rounds."""
    with Fleet() as fleet, on_core(CLIENT_CORE):
        several = rows(fleet)
        samples: dict[Row, list[dict[str, float]]] = {}
        for _ in range(rounds):
            for row in several:
                samples.setdefault(row, []).append(run(row, seconds))
        costs = {
            module: [imports(module, name) for _ in range(rounds)]
            for module, name in (
                ('zaqar_gevent.client', 'Client'),
                ('zaqar_gevent.client.aio', 'Client'),
                ('nats', 'connect'),
                ('kombu', 'Connection'),
            )
        }
    return {
        'rows': [
            {
                'client': row.client,
                'what': row.what,
                'rate': results.middle([one['count'] / one['seconds'] for one in found]),
                'client_us': results.middle([one['cpu'] / one['count'] * 1e6 for one in found]),
            }
            for row, found in samples.items()
        ],
        'imports': [
            {
                'module': module,
                'ms': results.middle([took * 1e3 for took, _ in found]),
                'bytes': results.middle([size for _, size in found]),
            }
            for module, found in costs.items()
        ],
    }


def main(argv: Sequence[str] | None = None) -> None:
    options = results.options(__doc__, argv, seconds=2.0)
    end_orderly()
    found = measure(options.seconds, options.rounds)
    print(tables.clients(found))
    print(results.save('clients', found, options.out))


if __name__ == '__main__':
    main()
