"""The limits of each WebSocket connection; the options of the same names explain them."""

from __future__ import annotations

from typing import NamedTuple


class Limits(NamedTuple):
    """Numbers of requests, messages and bytes; times in seconds, 0 for no limit."""

    max_in_flight: int = 64
    max_requests_per_second: int = 0
    outbox_bytes: int = 1024 * 1024
    outbox_messages: int = 1000
    ping_interval: float = 25.0
    ping_timeout: float = 8.0
    idle_timeout: float = 0.0
    authentication_timeout: float = 60.0
    close_timeout: float = 5.0
