"""What every client does, and the transcript that each must give of it.

`python -m tests.client.scenario URL` prints the transcript of a client as JSON, also under gevent.
The expected one is in `scenario.json`, for clients in other languages as well.
"""

from __future__ import annotations

import argparse
import itertools
import json
import pathlib
from collections.abc import Iterable
from typing import Any

EXPECTED: list[Any] = json.loads(pathlib.Path(__file__).with_suffix('.json').read_text())


def scenario(client: Any, name: str) -> list[list[Any]]:
    """Use a queue for everything that it is there for; gives what came of each step."""
    queue = client.queue(name)
    transcript: list[list[Any]] = []

    def record(step: str, result: Any) -> None:
        transcript.append([step, result])

    record('create', [queue.create({'_default_message_ttl': 600}), queue.create()])
    posted: list[str] = []
    for start in range(0, 1000, 50):
        posted += queue.post([body(number) for number in range(start, start + 50)])
    record('post', [len(posted), len(set(posted))])
    record('list', numbers(queue.messages()))
    claim = queue.claim(limit=10, ttl=60)
    claimed = list(claim.messages)
    record('claim', numbers(claimed))
    for message in claimed:
        message.delete()
    record('delete', counts(queue))
    with queue.subscribe(marker='') as subscription:
        pushed = list(itertools.islice(subscription, 990))
        queue.post(body(1000))
        pushed += itertools.islice(subscription, 1)
    record('subscribe', numbers(pushed))
    with queue.consume(credit=10) as consumer:
        record('consume', sorted(numbers(acknowledged(consumer, 991))))
    record('stats', counts(queue))
    record('errors', errors(client, queue))
    record('delete', queue.delete())
    return transcript


def body(number: int) -> dict[str, Any]:
    return {'n': number, 'text': f'é{number}'}


def numbers(messages: Iterable[Any]) -> list[int]:
    """Which messages these are, of which nothing may be lost on the way."""
    found = []
    for message in messages:
        number = message.body['n']
        assert message.body == body(number)
        found.append(number)
    return found


def acknowledged(consumer: Iterable[Any], count: int) -> Iterable[Any]:
    for message in itertools.islice(consumer, count):
        message.ack()
        yield message


def counts(queue: Any) -> dict[str, int]:
    messages = queue.stats()['messages']
    return {name: messages[name] for name in ('claimed', 'free', 'total')}


def errors(client: Any, queue: Any) -> list[list[Any]]:
    from zaqar_gevent.client import APIError

    refused = []
    for ask in (
        lambda: queue.get('no-such-message'),
        lambda: queue.post('brief', ttl=1),
        lambda: client.call('claim_get', queue_name=queue.name, claim_id='no-such-claim'),
    ):
        try:
            ask()
        except APIError as error:
            refused.append([error.status, error.code])
    return refused


def main() -> None:
    """Print the transcript of one client."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument('url')
    parser.add_argument('--project', default='demo')
    parser.add_argument('--transport', default='auto')
    parser.add_argument('--encoding', default='msgpack')
    parser.add_argument('--gevent', action='store_true')
    options = parser.parse_args()
    if options.gevent:
        from gevent import monkey

        monkey.patch_all()
    from zaqar_gevent.client import Client

    with Client(
        options.url,
        project=options.project,
        transport=options.transport,
        encoding=options.encoding,
    ) as client:
        print(json.dumps(scenario(client, 'scenario')))


if __name__ == '__main__':
    main()
