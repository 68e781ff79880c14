"""The values that documents are made of, as types for decoders of MsgPack.

A decoder that is given one of these types refuses all that is outside of the data model while it
reads: numbers that are not finite, integers that are not from -2^63 to 2^63-1, keys that are not
text, binary and extension values, and what is nested too deeply.
"""

from __future__ import annotations

import sys
from types import GenericAlias
from typing import Annotated, Any, NewType

import msgspec

_INTEGER: Any = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_FLOAT: Any = Annotated[float, msgspec.Meta(ge=-sys.float_info.max, le=sys.float_info.max)]
_SCALAR: Any = None | bool | _INTEGER | _FLOAT | str

_named: Any = NewType
_BODY_LEVELS = 8
_ARGUMENT_LEVELS = 4


def _list_of(kind: Any) -> Any:
    return GenericAlias(list, (kind,))


def _object_of(kind: Any) -> Any:
    return GenericAlias(dict, (str, kind))


def _nested(levels: int) -> Any:
    """A value that is nested at most `levels` levels deep.

    A decoder of it has twice the size for each level more.
    """
    kind = _SCALAR
    for level in range(levels):
        # The hash of a type with a name is computed at once, that of a union from all its parts.
        deeper = _named(f'level_{level}', kind)
        kind = _SCALAR | _list_of(deeper) | _object_of(deeper)
    return kind


_MESSAGE = _object_of(_nested(_BODY_LEVELS))
_ARGUMENT = _SCALAR | _list_of(_SCALAR | _MESSAGE) | _object_of(_nested(_ARGUMENT_LEVELS))

USUAL_REQUEST: Any = _object_of(_SCALAR | _object_of(_ARGUMENT))
"""A request of the usual form: an envelope, arguments in it, and perhaps messages among them.

A request of another form may be good as well.
"""

USUAL_LEVELS = 4 + _BODY_LEVELS
"""How many levels deep a request of the usual form may be nested."""
