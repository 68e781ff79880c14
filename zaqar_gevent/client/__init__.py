"""A client of Zaqar that stays connected: by a WebSocket, or REST where that does not get through.

::

    from zaqar_gevent.client import Client

    with Client('http://localhost:8888', project='demo') as zaqar:
        orders = zaqar.queue('orders')
        orders.post({'sku': 42}, ttl=300)
        for message in orders.claim(limit=10, ttl=60):
            message.delete()

It needs `msgpack`, `urllib3` and `websockets` and nothing of the server, and works in threads as
well as in greenlets, where gevent has patched the standard library. `zaqar_gevent.client.aio` is
the same for asyncio. See docs/python-client.md.
"""

from zaqar_gevent.client.errors import (
    AccessEnded,
    APIError,
    BadRequest,
    BodyTooLarge,
    ClientClosed,
    ClientForked,
    Conflict,
    ConnectionLost,
    Forbidden,
    LeaseLost,
    NotAcceptable,
    NotFound,
    NotImplementedThere,
    NotZaqar,
    OutcomeUnknown,
    Reject,
    Retry,
    ServiceUnavailable,
    Timeout,
    TooManyRequests,
    Unauthorized,
    Unsupported,
    UnsupportedMediaType,
    ZaqarError,
)
from zaqar_gevent.client.links import Capabilities
from zaqar_gevent.client.sync.client import Client
from zaqar_gevent.client.sync.consumer import Consumer
from zaqar_gevent.client.sync.message import Claim, Message
from zaqar_gevent.client.sync.queue import Queue, Topic
from zaqar_gevent.client.sync.redrive import Redrive
from zaqar_gevent.client.sync.subscription import Subscription
from zaqar_gevent.client.sync.worker import Worker

__all__ = [
    'APIError',
    'AccessEnded',
    'BadRequest',
    'BodyTooLarge',
    'Capabilities',
    'Claim',
    'Client',
    'ClientClosed',
    'ClientForked',
    'Conflict',
    'ConnectionLost',
    'Consumer',
    'Forbidden',
    'LeaseLost',
    'Message',
    'NotAcceptable',
    'NotFound',
    'NotImplementedThere',
    'NotZaqar',
    'OutcomeUnknown',
    'Queue',
    'Redrive',
    'Reject',
    'Retry',
    'ServiceUnavailable',
    'Subscription',
    'Timeout',
    'TooManyRequests',
    'Topic',
    'Unauthorized',
    'Unsupported',
    'UnsupportedMediaType',
    'Worker',
    'ZaqarError',
]
