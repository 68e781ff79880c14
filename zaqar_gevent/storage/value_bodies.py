"""Drivers that keep values, as upstream's, behind the interface of those that carry bodies.

Drivers of this project take and give a `Body` with each message, when their `carries_bodies` is
set. Every other driver takes and gives the value of each body, and `bytes` for an encrypted one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zaqar.storage import base

from zaqar_gevent.bodies import Body, body_of
from zaqar_gevent.storage import own_drivers
from zaqar_gevent.storage.interface import StoredMessage
from zaqar_gevent.storage.wrapped import Claims, Messages, replace_controllers


def carry_bodies(driver: base.DataDriverBase) -> None:
    """Have the driver's controllers take and give a `Body` with each message."""
    if isinstance(driver, own_drivers.DataDriver):
        driver.carries_bodies = True
    elif not isinstance(driver.message_controller, _Messages):
        replace_controllers(
            driver,
            _Messages(driver.message_controller, _value_of, _read),
            Claims(driver.claim_controller, _read),
        )


class _Messages(Messages):
    """Upstream's message controller."""

    def pop(self, *args: Any, **kwargs: Any) -> Sequence[StoredMessage]:
        return [*self._converted(self._controller.pop(*args, **kwargs) or ())]


def _value_of(body: Body) -> Any:
    return body.value


def _read(stored: Any) -> Body:
    # Upstream's `pop` gives what a claim has given.
    return stored if isinstance(stored, Body) else body_of(stored)
