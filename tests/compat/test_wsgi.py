"""Upstream's tests of its REST transport."""

import importlib
import unittest

MODULES = (
    'test_utils',
    'test_version',
    'v2_0.test_auth',
    'v2_0.test_claims',
    'v2_0.test_default_limits',
    'v2_0.test_flavors_new',
    'v2_0.test_health',
    'v2_0.test_home',
    'v2_0.test_media_type',
    'v2_0.test_messages',
    'v2_0.test_ping',
    'v2_0.test_pools_new',
    'v2_0.test_purge',
    'v2_0.test_queue_lifecycle',
    'v2_0.test_subscriptions',
    'v2_0.test_topic_lifecycle',
    'v2_0.test_urls',
    'v2_0.test_validation',
)


def _cases() -> dict[str, type[unittest.TestCase]]:
    """The test classes that these modules define."""
    return {
        name: value
        for module in map(importlib.import_module, _names())
        for name, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, unittest.TestCase)
        and value.__module__ == module.__name__
    }


def _names() -> list[str]:
    return [f'zaqar.tests.unit.transport.wsgi.{name}' for name in MODULES]


CASES = _cases()
globals().update(CASES)
