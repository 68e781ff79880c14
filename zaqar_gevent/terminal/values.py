"""Functions that read an argument of a command, or say what is wrong with it."""

from __future__ import annotations

import argparse
import json
import math
import uuid
from typing import Any


def printable(text: str) -> str:
    if not (text.isascii() and text.isprintable()):
        raise argparse.ArgumentTypeError('only printable ASCII is allowed')
    return text


def uuid_text(text: str) -> str:
    return str(uuid.UUID(text))


def count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f'{number} is less than 1')
    return number


def whole(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f'{number} is less than 0')
    return number


def not_negative(text: str) -> float:
    number = float(text)
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f'{text} is not a number of seconds')
    return number


def positive(text: str) -> float:
    number = not_negative(text)
    if number == 0:
        raise argparse.ArgumentTypeError('0 is no time at all')
    return number


def retry_delay(text: str) -> dict[str, float]:
    """`INITIAL[,FACTOR[,MAX]]`, as the setting `_retry_delay` has them."""
    names = ('initial', 'factor', 'max')
    parts = text.split(',')
    if len(parts) > len(names):
        raise argparse.ArgumentTypeError(f'{text!r} is not INITIAL,FACTOR,MAX')
    return dict(zip(names, map(_plain_number, parts), strict=False))


def _plain_number(text: str) -> float:
    number = not_negative(text)
    return int(number) if number.is_integer() else number


def pair(text: str) -> tuple[str, Any]:
    """`KEY=VALUE`, where the value is JSON or else text."""
    key, equals, value = text.partition('=')
    if not key or not equals:
        raise argparse.ArgumentTypeError(f'{text!r} is not KEY=VALUE')
    return key, json_or_text(value)


def attribute(text: str) -> tuple[str, str]:
    """`NAME=VALUE`, where the value is text."""
    name, equals, value = text.partition('=')
    if not name or not equals:
        raise argparse.ArgumentTypeError(f'{text!r} is not NAME=VALUE')
    return name, value


def json_object(text: str) -> dict[str, Any]:
    document = json_or_text(text)
    if not isinstance(document, dict):
        raise argparse.ArgumentTypeError(f'{text!r} is not a JSON object')
    return document


def conditions(text: str) -> dict[str, Any]:
    """A part of a filter: a JSON object, or `NAME=VALUE` for a text that an attribute equals."""
    if text.lstrip().startswith('{'):
        return json_object(text)
    return dict([attribute(text)])


def moment(text: str) -> float | str:
    """A time: seconds since the epoch, or a text that the server reads."""
    try:
        return not_negative(text)
    except ValueError:
        return text


def json_or_text(text: str) -> Any:
    """The value of a text: parsed as JSON if it is JSON, otherwise the text.

    Text too is an object that has a name twice, which would lose a member.
    """
    try:
        return json.loads(text, parse_constant=_reject, object_pairs_hook=_object_of)
    except (ValueError, RecursionError):
        return text


def _reject(constant: str) -> Any:
    raise ValueError(f'{constant} is not JSON')


def _object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError('an object has a name twice')
    return members


# argparse names a type by its function in error messages.
for _type, _name in (
    (count, 'number'),
    (whole, 'number'),
    (not_negative, 'number of seconds'),
    (positive, 'number of seconds'),
    (uuid_text, 'UUID'),
    (retry_delay, 'delay'),
):
    _type.__name__ = _name
