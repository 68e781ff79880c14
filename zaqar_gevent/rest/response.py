"""Responses as responders of operations get them."""

from __future__ import annotations

import falcon


class Response(falcon.Response):
    """Falcon's response, of which only status, headers and data are there.

    data: the body.

    PERF: Falcon makes all of it ready, for each request.
    """

    __slots__ = ('data',)

    data: bytes

    def __init__(self) -> None:
        self.status = '200 OK'
        self.data = b''
        self._headers: dict[str, str] = {}

    @property
    def headers(self) -> dict[str, str]:
        """The headers by lower-case name; not a copy."""
        return self._headers
