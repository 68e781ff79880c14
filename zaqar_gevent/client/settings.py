"""The arguments of a client, checked."""

from __future__ import annotations

import dataclasses
import ssl
import uuid
from collections.abc import Callable, Mapping
from typing import Any, get_args

from zaqar_gevent.client import codecs, credentials, engines
from zaqar_gevent.client.credentials import Credentials, FixedToken
from zaqar_gevent.client.fallback import RETRY_SECONDS, Transport

TRANSPORTS = get_args(Transport)
KEEPALIVE_SECONDS = 10.0
MAX_MESSAGE_BYTES = 16 * 1024 * 1024


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """The arguments of a client; its docstring explains each."""

    # What may hold a password or a token is not shown.
    url: str | None = dataclasses.field(repr=False)
    websocket_url: str | None = dataclasses.field(repr=False)
    project: str | None
    client_id: str
    credentials: Credentials = dataclasses.field(repr=False)
    transport: Transport
    encoding: str
    timeout: float
    headers: Mapping[str, str] = dataclasses.field(repr=False)
    tls: ssl.SSLContext | None
    max_message_size: int
    keepalive: float
    retry_seconds: float
    pool_size: int
    engine: str
    compression: bool
    default: Callable[[Any], Any] | None


def check(
    *,
    url: str | None,
    websocket_url: str | None,
    project: str | None,
    client_id: str | None,
    token: str | Callable[[], Any] | None,
    session: Any,
    transport: Transport,
    encoding: str,
    headers: Mapping[str, str] | None,
    engine: str,
    **others: Any,
) -> Settings:
    """The settings that these arguments make; raises ValueError for what is wrong in them."""
    if transport not in TRANSPORTS:
        raise ValueError(f'The transport must be one of {", ".join(TRANSPORTS)}.')
    if encoding not in codecs.ENCODINGS:
        raise ValueError(f'The encoding must be one of {", ".join(codecs.ENCODINGS)}.')
    engines.load(engine)
    chosen = credentials.choose(token, session)
    given = {name.lower(): value for name, value in (headers or {}).items()}
    is_nobody = isinstance(chosen, FixedToken) and chosen.value is None
    if project is None and is_nobody and 'x-project-id' not in given:
        raise ValueError(
            "Whose queues? Give project='...', or a token or session that belongs to a project."
        )
    return Settings(
        url=url,
        websocket_url=websocket_url,
        project=project,
        client_id=client_id or str(uuid.uuid4()),
        credentials=chosen,
        transport=transport,
        encoding=encoding,
        headers=dict(headers or {}),
        engine=engine,
        **others,
    )


__all__ = ['KEEPALIVE_SECONDS', 'MAX_MESSAGE_BYTES', 'RETRY_SECONDS', 'Settings', 'check']
