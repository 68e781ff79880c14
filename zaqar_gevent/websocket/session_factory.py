"""Makes the session that answers a new connection, by the negotiated protocol."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

from oslo_context import context as oslo_context

from zaqar_gevent import metrics
from zaqar_gevent.access_log import AccessLog
from zaqar_gevent.api.context import Caller, Identity
from zaqar_gevent.api.dispatcher import Dispatcher
from zaqar_gevent.api.push import Endpoint
from zaqar_gevent.api.tracing import TraceContext
from zaqar_gevent.websocket.compact import SUBPROTOCOL, CompactSession
from zaqar_gevent.websocket.connection import Receiver
from zaqar_gevent.websocket.session import DefaultSession, Identify

_TRANSPORTS = {
    (protocol, binary): f'{prefix}-{"msgpack" if binary else "json"}'
    for protocol, prefix in (('default', 'websocket'), (SUBPROTOCOL, SUBPROTOCOL))
    for binary in (False, True)
}


class EndpointFactory(Protocol):
    """Connects clients to the push hub."""

    def endpoint(self, *, compact: bool) -> Endpoint: ...


class SessionFactory:
    """Makes sessions, and counts and logs what is said in them."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        identify: Identify | None,
        access_log: AccessLog,
        push_hub: EndpointFactory,
    ) -> None:
        self._dispatcher = dispatcher
        self._identify = identify
        self._access_log = access_log
        self._push_hub = push_hub

    def __call__(
        self,
        subprotocol: str | None = None,
        identity: Identity | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
        address: str = '',
    ) -> Receiver:
        """A session for a new connection; see `zaqar_gevent.websocket.upgrade.NewReceiver`."""
        compact = subprotocol == SUBPROTOCOL
        endpoint = self._push_hub.endpoint(compact=compact)
        observe = functools.partial(self._observe, address)
        known = (self._dispatcher, self._identify, identity, observe, endpoint)
        if compact:
            return CompactSession(*known, handshake=headers)
        return DefaultSession(*known)

    def _observe(
        self,
        address: str,
        operation: str,
        protocol: str,
        binary: bool,
        status: int,
        seconds: float,
        caller: Caller,
        bytes_in: int,
        bytes_out: int,
        trace: TraceContext | None,
    ) -> None:
        transport = _TRANSPORTS[protocol, binary]
        metrics.observe_request(operation, transport, status, seconds)
        if self._access_log.enabled:
            current = oslo_context.get_current()
            self._access_log.write(
                request_id=current.request_id if current else None,
                transport=transport,
                operation=operation,
                status=status,
                seconds=seconds,
                project_id=caller.project_id,
                user_id=caller.user_id,
                client_id=caller.client_id,
                remote=address,
                bytes_in=bytes_in,
                bytes_out=bytes_out,
                trace_id=None if trace is None else trace.trace_id,
            )
