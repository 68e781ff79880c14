"""The client for asyncio: the same as `zaqar_gevent.client`, with `await`.

::

    from zaqar_gevent.client.aio import Client

    async with Client('http://localhost:8888', project='demo') as zaqar:
        orders = zaqar.queue('orders')
        await orders.post({'sku': 42}, ttl=300)
        async with orders.subscribe(marker='') as subscription:
            async for message in subscription:
                print(message.body)

It needs `httpcore`, `msgpack` and `websockets` and nothing of the server, uses no threads, and
works in any event loop of asyncio, such as uvloop's. See docs/python-client.md.
"""

from zaqar_gevent.client.aio.client import Client
from zaqar_gevent.client.aio.consumer import Consumer
from zaqar_gevent.client.aio.message import Claim, Message
from zaqar_gevent.client.aio.queue import Queue, Topic
from zaqar_gevent.client.aio.redrive import Redrive
from zaqar_gevent.client.aio.subscription import Subscription
from zaqar_gevent.client.aio.worker import Worker

__all__ = [
    'Claim',
    'Client',
    'Consumer',
    'Message',
    'Queue',
    'Redrive',
    'Subscription',
    'Topic',
    'Worker',
]
