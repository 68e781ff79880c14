"""Upstream's controllers with some methods of ours."""

from __future__ import annotations

from typing import Any


class Wrapped:
    """A controller, some of whose methods are others."""

    def __init__(self, controller: Any) -> None:
        self._controller = controller

    def __getattr__(self, name: str) -> Any:
        return getattr(self._controller, name)
