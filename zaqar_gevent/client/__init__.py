"""A client of Zaqar that stays connected: by a WebSocket, or REST where that does not get through.

::

    from zaqar_gevent.client import Client

    with Client('http://localhost:8888', project='demo') as zaqar:
        orders = zaqar.queue('orders')
        orders.post({'sku': 42}, ttl=300)
        for message in orders.claim(limit=10, ttl=60):
            message.delete()

It needs `msgpack`, `urllib3` and `ws4py` and nothing of the server, and works in threads as well as
in greenlets, where gevent has patched the standard library. See docs/python-client.md.
"""

from zaqar_gevent.client.client import Client
from zaqar_gevent.client.consumer import Consumer
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
    NotAcceptable,
    NotFound,
    NotImplementedThere,
    OutcomeUnknown,
    ServiceUnavailable,
    Timeout,
    TooManyRequests,
    Unauthorized,
    Unsupported,
    UnsupportedMediaType,
    ZaqarError,
)
from zaqar_gevent.client.links import Capabilities
from zaqar_gevent.client.message import Claim, Message
from zaqar_gevent.client.queue import Queue, Topic
from zaqar_gevent.client.subscription import Subscription

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
    'Message',
    'NotAcceptable',
    'NotFound',
    'NotImplementedThere',
    'OutcomeUnknown',
    'Queue',
    'ServiceUnavailable',
    'Subscription',
    'Timeout',
    'TooManyRequests',
    'Topic',
    'Unauthorized',
    'Unsupported',
    'UnsupportedMediaType',
    'ZaqarError',
]
