"""The scenario for the asyncio client: the same steps and the same transcript.

`python -m tests.client.aio_scenario URL` prints the transcript as JSON; with `--uvloop` in uvloop.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import AsyncIterable
from typing import Any

from tests.client.scenario import body, numbers
from zaqar_gevent.client import APIError
from zaqar_gevent.client.aio import Client, Message, Queue


async def scenario(client: Client, name: str) -> list[list[Any]]:
    """Use a queue for everything that it is there for; gives what came of each step."""
    queue = client.queue(name)
    transcript: list[list[Any]] = []

    def record(step: str, result: Any) -> None:
        transcript.append([step, result])

    record('create', [await queue.create({'_default_message_ttl': 600}), await queue.create()])
    posted: list[str] = []
    for start in range(0, 1000, 50):
        posted += await queue.post([body(number) for number in range(start, start + 50)])
    record('post', [len(posted), len(set(posted))])
    record('list', numbers([message async for message in queue.messages()]))
    claim = await queue.claim(limit=10, ttl=60)
    claimed = list(claim.messages)
    record('claim', numbers(claimed))
    for message in claimed:
        await message.delete()
    record('delete', await counts(queue))
    async with queue.subscribe(marker='') as subscription:
        pushed = [message async for message in first(subscription, 990)]
        await queue.post(body(1000))
        pushed += [message async for message in first(subscription, 1)]
    record('subscribe', numbers(pushed))
    async with queue.consume(credit=10) as consumer:
        consumed = []
        async for message in first(consumer, 991):
            await message.ack()
            consumed.append(message)
        record('consume', sorted(numbers(consumed)))
    record('stats', await counts(queue))
    record('errors', await errors(client, queue))
    record('delete', await queue.delete())
    return transcript


async def first(messages: AsyncIterable[Message], count: int) -> AsyncIterable[Message]:
    """The first messages of a stream."""
    left = count
    async for message in messages:
        yield message
        left -= 1
        if not left:
            return


async def counts(queue: Queue) -> dict[str, int]:
    messages = (await queue.stats())['messages']
    return {name: messages[name] for name in ('claimed', 'free', 'total')}


async def errors(client: Client, queue: Queue) -> list[list[Any]]:
    refused = []
    for ask in (
        lambda: queue.get('no-such-message'),
        lambda: queue.post('brief', ttl=1),
        lambda: client.call('claim_get', queue_name=queue.name, claim_id='no-such-claim'),
    ):
        try:
            await ask()
        except APIError as error:
            refused.append([error.status, error.code])
    return refused


async def run(url: str, **options: Any) -> list[list[Any]]:
    """The transcript of one client."""
    async with Client(url, **options) as client:
        return await scenario(client, 'scenario')


def main() -> None:
    """Print the transcript of one client."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument('url')
    parser.add_argument('--project', default='demo')
    parser.add_argument('--transport', default='auto')
    parser.add_argument('--encoding', default='msgpack')
    parser.add_argument('--engine', default='websockets')
    parser.add_argument('--uvloop', action='store_true')
    options = vars(parser.parse_args())
    run_in = asyncio.run
    if options.pop('uvloop'):
        import uvloop

        run_in = uvloop.run
    print(json.dumps(run_in(run(options.pop('url'), **options))))


if __name__ == '__main__':
    main()
