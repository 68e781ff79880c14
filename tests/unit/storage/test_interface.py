"""Upstream's drivers have the interface of all drivers; mypy checks those of this project."""

from __future__ import annotations

import inspect
from importlib import import_module

import pytest

from zaqar_gevent.storage import interface

FEATURES = {'restore', 'end', 'find_post', 'keeps_place', 'find_claimable', 'count', 'settle'}
FEATURE_PARAMETERS = {('ClaimController', 'delete', 'delay')}
"""Methods and parameters of the interface that only stores with a feature have."""

MISSING = {('zaqar.storage.mongodb.topics', 'calculate_resource_count')}
"""Upstream counts no topics."""

CONTROLLERS = [
    (f'zaqar.storage.{store}.{module}', name, protocol)
    for store, modules in {
        'redis': ('queues', 'messages', 'claims', 'subscriptions', 'pools', 'flavors', 'catalogue'),
        'mongodb': (
            *('queues', 'messages', 'claims', 'subscriptions', 'pools', 'flavors', 'catalogue'),
            'topics',
        ),
        'swift': ('messages', 'claims', 'subscriptions'),
        'sqlalchemy': ('queues', 'pools', 'flavors', 'catalogue'),
    }.items()
    for module, name, protocol in (
        ('queues', 'QueueController', interface.QueueController),
        ('topics', 'TopicController', interface.QueueController),
        ('messages', 'MessageController', interface.MessageController),
        ('claims', 'ClaimController', interface.ClaimController),
        ('subscriptions', 'SubscriptionController', interface.SubscriptionController),
        ('pools', 'PoolsController', interface.PoolsController),
        ('flavors', 'FlavorsController', interface.FlavorsController),
        ('catalogue', 'CatalogueController', interface.CatalogueController),
    )
    if module in modules
]


@pytest.mark.parametrize(
    ('module', 'name', 'protocol'), CONTROLLERS, ids=[one[0] for one in CONTROLLERS]
)
def test_upstreams_drivers_have_the_interface(module: str, name: str, protocol: type) -> None:
    controller = getattr(import_module(module), name)
    for method, declared in vars(protocol).items():
        if method.startswith('_') or method in FEATURES or not callable(declared):
            continue
        if (module, method) in MISSING:
            assert not hasattr(controller, method)
            continue
        wanted = inspect.signature(declared).parameters
        offered = inspect.signature(getattr(controller, method)).parameters
        assert len(offered) > min(1, len(wanted) - 1), method
        takes_any = any(one.kind is one.VAR_KEYWORD for one in offered.values())
        # The first is given by its place.
        for parameter in list(wanted.values())[2:]:
            if (protocol.__name__, method, parameter.name) in FEATURE_PARAMETERS:
                continue
            if parameter.kind is not parameter.VAR_KEYWORD:
                assert parameter.name in offered or takes_any, f'{method}({parameter.name})'
