"""How long a message waits before it is claimed again: the setting `_retry_delay` of a queue."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

MAX_SECONDS = 43_200
"""The longest delay before a retry."""

_Seconds = Annotated[float, msgspec.Meta(ge=0, le=MAX_SECONDS)]


class RetryDelay(msgspec.Struct, frozen=True):
    """The delay before the first retry, by how much each further one is longer, and the longest.

    `initial` and `max` are in seconds, at most 43200.
    """

    initial: _Seconds = 1
    factor: Annotated[float, msgspec.Meta(ge=1, le=10)] = 2
    max: _Seconds = 300

    def after(self, claims: int) -> float:
        """Seconds to wait after a message has been claimed so many times."""
        try:
            delay = self.initial * self.factor ** max(0, claims - 1)
        except OverflowError:
            return float(self.max)
        return float(min(delay, self.max))


class NewRetryDelay(RetryDelay, frozen=True, forbid_unknown_fields=True):
    """The setting as a client may give it: stored ones of older versions may have more members.

    `initial` is at most `max`.
    """

    def __post_init__(self) -> None:
        if self.initial > self.max:
            raise ValueError(
                f'`initial` must be at most `max` (by default {RetryDelay().max:g} seconds): '
                f'{self.initial:g} is larger than {self.max:g}'
            )


def read(document: bytes | str) -> RetryDelay:
    """The setting from its JSON."""
    return msgspec.json.decode(document, type=RetryDelay)


def of(metadata: Any) -> RetryDelay | None:
    """The setting in the metadata of a queue; None where there is no valid one."""
    setting = metadata.get('_retry_delay')
    if not isinstance(setting, dict):
        return None
    try:
        return msgspec.convert(setting, RetryDelay)
    except msgspec.ValidationError:
        return None
