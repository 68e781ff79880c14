"""Which of some sockets or files can be read, however high their numbers are."""

from __future__ import annotations

import selectors
from collections.abc import Iterable
from typing import Any


def readable(files: Iterable[Any], timeout: float | None) -> list[Any]:
    """Those of `files` that can be read within `timeout` seconds; `select.select` ends at 1,023."""
    with selectors.DefaultSelector() as selector:
        for file in files:
            selector.register(file, selectors.EVENT_READ)
        return [key.fileobj for key, _ in selector.select(timeout)]
