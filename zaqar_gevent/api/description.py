"""The service described for programs: OpenAPI of its REST, AsyncAPI of its WebSocket.

Each transport builds its own document; the server registers the builders in
`Broker.descriptions`.
"""

from __future__ import annotations

from typing import Any

from zaqar_gevent.api.context import Context
from zaqar_gevent.api.operation import operation
from zaqar_gevent.api.service import NoArguments


@operation('get_openapi', rest='GET /v2/openapi.json', policy=None, anonymous=True)
def get_openapi(context: Context, request: NoArguments) -> dict[str, Any]:
    """Get the OpenAPI 3.1 document of the REST API."""
    return context.broker.descriptions['openapi']()


@operation('get_asyncapi', rest='GET /v2/asyncapi.json', policy=None, anonymous=True)
def get_asyncapi(context: Context, request: NoArguments) -> dict[str, Any]:
    """Get the AsyncAPI 3.0 document of the WebSocket API."""
    return context.broker.descriptions['asyncapi']()
