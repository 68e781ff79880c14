"""An operation as clients know it: its route in REST, and when it may be repeated."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

JSON = 'application/json'

_VARIABLE = re.compile(r'{(\w+)}')


@dataclasses.dataclass(frozen=True)
class Repeat:
    """When an operation may be asked again without knowing whether it was performed.

    given: this argument must be there. absent: this argument must not be there. changes: each
    change of a JSON patch must be one of these operations.
    """

    given: str | None = None
    absent: str | None = None
    changes: tuple[str, ...] = ()

    def allows(self, arguments: Mapping[str, Any]) -> bool:
        """Whether a request with these arguments may be repeated."""
        if self.given is not None and arguments.get(self.given) is None:
            return False
        if self.absent is not None and arguments.get(self.absent) is not None:
            return False
        changes = arguments.get('changes') or () if self.changes else ()
        return all(change.get('op') in self.changes for change in changes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Operation:
    """One operation, named by its WebSocket action.

    method, path: its route in REST; both are None where it has none.
    query: arguments that go into the query, by the parameter's name.
    payload: the argument that is the whole body; without one, the arguments left are its members.
    filters: the argument whose members are query parameters.
    optional_body: whether no body means something else than an empty one.
    repeat: when it may be repeated safely; None for never.
    """

    name: str
    method: str | None = None
    path: str | None = None
    query: Mapping[str, str] = dataclasses.field(default_factory=dict)
    payload: str | None = None
    filters: str | None = None
    media_type: str = JSON
    optional_body: bool = False
    repeat: Repeat | None = None

    @property
    def variables(self) -> list[str]:
        """The arguments that are parts of the path."""
        return _VARIABLE.findall(self.path or '')

    def may_repeat(self, arguments: Mapping[str, Any]) -> bool:
        """Whether it may be asked again when it is not known whether it was performed."""
        return self.repeat is not None and self.repeat.allows(arguments)
