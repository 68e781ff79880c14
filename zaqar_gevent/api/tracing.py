"""The trace that a request belongs to, by W3C Trace Context (https://www.w3.org/TR/trace-context/).

Nothing is recorded here. The messages of a request carry its context, so that their consumers can
link to it, as OpenTelemetry's conventions for messaging systems describe.
"""

from __future__ import annotations

import re
from typing import NamedTuple

PARENT, STATE = 'traceparent', 'tracestate'
"""The names of the headers, and of the attributes."""

MAX_STATE = 512
"""Characters of `tracestate` that have to be handed on; a longer one is left out."""

_PARENT = re.compile(r'(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}')
# Later versions may have further parts, which are not known here.
_LATER = re.compile(r'(?!ff|00)([0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2})-.*')
_STATE = re.compile(r'[\x20-\x7e\t]+')


class TraceContext(NamedTuple):
    """`traceparent` and `tracestate`, which may be missing, as they were sent."""

    parent: str
    state: str | None

    @classmethod
    def of(cls, parent: str | None, state: str | None) -> TraceContext | None:
        """The context in these headers; None where `traceparent` is missing or not valid."""
        if parent is None:
            return None
        later = _LATER.fullmatch(parent)
        if not _PARENT.fullmatch(later[1] if later else parent):
            return None
        is_valid = state is not None and len(state) <= MAX_STATE and _STATE.fullmatch(state)
        return cls(parent, state if is_valid else None)

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits."""
        return self.parent[3:35]

    @property
    def attributes(self) -> dict[str, str]:
        """The attributes that a message gets from the trace."""
        found = {PARENT: self.parent}
        if self.state is not None:
            found[STATE] = self.state
        return found
