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
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f'{text!r} is not a UUID') from None


def count(text: str) -> int:
    return _integer(text, 1)


def whole(text: str) -> int:
    return _integer(text, 0)


def _integer(text: str, least: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least:
        raise argparse.ArgumentTypeError(f'{text!r} is not a whole number of at least {least}')
    return number


def not_negative(text: str) -> float:
    number = _number(text)
    if number is None or number < 0:
        raise argparse.ArgumentTypeError(f'{text!r} is not a number of seconds, 0 or more')
    return number


def positive(text: str) -> float:
    number = _number(text)
    if number is None or number <= 0:
        raise argparse.ArgumentTypeError(f'{text!r} is not a number of seconds above 0')
    return number


def rate(text: str) -> float:
    number = _number(text)
    if number is None or not 0.01 <= number <= 100_000:
        raise argparse.ArgumentTypeError(f'{text!r} is not a rate, 0.01 to 100000 a second')
    return number


def _number(text: str) -> float | None:
    """The finite number that a text is; None for others."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def retry_delay(text: str) -> dict[str, float]:
    """`INITIAL[,FACTOR[,MAX]]`, as the setting `_retry_delay` has them."""
    names = ('initial', 'factor', 'max')
    parts = text.split(',')
    if len(parts) > len(names):
        raise argparse.ArgumentTypeError(f'{text!r} is not INITIAL,FACTOR,MAX')
    numbers = [_number(part) for part in parts]
    if any(number is None or number < 0 for number in numbers):
        raise argparse.ArgumentTypeError(
            f'{text!r} is not INITIAL,FACTOR,MAX: numbers of 0 or more, such as 1,2,300'
        )
    plain = (int(one) if one.is_integer() else one for one in numbers if one is not None)
    return dict(zip(names, plain, strict=False))


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
    number = _number(text)
    return text if number is None else number


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
