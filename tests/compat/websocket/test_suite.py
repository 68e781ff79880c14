"""Upstream's tests of its WebSocket transport."""

from __future__ import annotations

import importlib
import unittest

import zaqar.transport.websocket.factory  # noqa: F401  (upstream's tests rely on somebody importing it)

MODULES = (
    'test_protocol',
    'v2.test_claims',
    'v2.test_messages',
    'v2.test_queue_lifecycle',
    'v2.test_subscriptions',
)


def _cases() -> dict[str, type[unittest.TestCase]]:
    """The test classes that these modules define."""
    modules = (
        importlib.import_module(f'zaqar.tests.unit.transport.websocket.{name}') for name in MODULES
    )
    return {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, unittest.TestCase)
        and value.__module__ == module.__name__
    }


globals().update(_cases())
