"""The transport-neutral API: what Zaqar does, whatever a request travelled in.

Every operation is declared once, beside the function that performs it, in one of the resource
modules imported here; the REST routes and the WebSocket actions are derived from `REGISTRY`.
"""

from zaqar_gevent.api import (
    claims,
    consumers,
    description,
    flavors,
    messages,
    pools,
    queues,
    redrives,
    service,
    settling,
    subscriptions,
)
from zaqar_gevent.api.operation import CONNECTION, REGISTRY

__all__ = [
    'CONNECTION',
    'REGISTRY',
    'claims',
    'consumers',
    'description',
    'flavors',
    'messages',
    'pools',
    'queues',
    'redrives',
    'service',
    'settling',
    'subscriptions',
]
