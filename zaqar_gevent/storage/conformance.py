"""Has mypy check that the drivers of this project have the interface of all drivers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zaqar_gevent.storage import interface
    from zaqar_gevent.storage.postgresql import catalogue as postgresql_catalogue
    from zaqar_gevent.storage.postgresql import claims as postgresql_claims
    from zaqar_gevent.storage.postgresql import driver as postgresql_driver
    from zaqar_gevent.storage.postgresql import flavors as postgresql_flavors
    from zaqar_gevent.storage.postgresql import messages as postgresql_messages
    from zaqar_gevent.storage.postgresql import pools as postgresql_pools
    from zaqar_gevent.storage.postgresql import queues as postgresql_queues
    from zaqar_gevent.storage.postgresql import subscriptions as postgresql_subscriptions
    from zaqar_gevent.storage.redis import catalogue as redis_catalogue
    from zaqar_gevent.storage.redis import claims as redis_claims
    from zaqar_gevent.storage.redis import driver as redis_driver
    from zaqar_gevent.storage.redis import flavors as redis_flavors
    from zaqar_gevent.storage.redis import messages as redis_messages
    from zaqar_gevent.storage.redis import pools as redis_pools
    from zaqar_gevent.storage.redis import queues as redis_queues
    from zaqar_gevent.storage.redis import subscriptions as redis_subscriptions
    from zaqar_gevent.storage.sqlite import catalogue as sqlite_catalogue
    from zaqar_gevent.storage.sqlite import claims as sqlite_claims
    from zaqar_gevent.storage.sqlite import driver as sqlite_driver
    from zaqar_gevent.storage.sqlite import flavors as sqlite_flavors
    from zaqar_gevent.storage.sqlite import messages as sqlite_messages
    from zaqar_gevent.storage.sqlite import pools as sqlite_pools
    from zaqar_gevent.storage.sqlite import queues as sqlite_queues
    from zaqar_gevent.storage.sqlite import spools as sqlite_spools
    from zaqar_gevent.storage.sqlite import subscriptions as sqlite_subscriptions

    _DATA: list[type[interface.OwnDataDriver]] = [
        sqlite_driver.DataDriver,
        redis_driver.DataDriver,
        postgresql_driver.DataDriver,
    ]
    _CONTROL: list[type[interface.ControlDriver]] = [
        sqlite_driver.ControlDriver,
        redis_driver.ControlDriver,
        postgresql_driver.ControlDriver,
    ]
    _QUEUES: list[type[interface.QueueController]] = [
        sqlite_queues.QueueController,
        sqlite_queues.TopicController,
        sqlite_spools.QueueController,
        sqlite_spools.TopicController,
        redis_queues.QueueController,
        redis_queues.TopicController,
        redis_queues.SpooledQueues,
        redis_queues.SpooledTopics,
        postgresql_queues.QueueController,
        postgresql_queues.TopicController,
        postgresql_queues.SpooledQueues,
        postgresql_queues.SpooledTopics,
    ]
    _MESSAGES: list[type[interface.MessageController]] = [
        sqlite_messages.MessageController,
        redis_messages.MessageController,
        postgresql_messages.MessageController,
    ]
    _CLAIMS: list[type[interface.ClaimController]] = [
        sqlite_claims.ClaimController,
        redis_claims.ClaimController,
        postgresql_claims.ClaimController,
    ]
    _SUBSCRIPTIONS: list[type[interface.SubscriptionController]] = [
        sqlite_subscriptions.SubscriptionController,
        redis_subscriptions.SubscriptionController,
        postgresql_subscriptions.SubscriptionController,
    ]
    _POOLS: list[type[interface.PoolsController]] = [
        sqlite_pools.PoolsController,
        redis_pools.PoolsController,
        postgresql_pools.PoolsController,
    ]
    _FLAVORS: list[type[interface.FlavorsController]] = [
        sqlite_flavors.FlavorsController,
        redis_flavors.FlavorsController,
        postgresql_flavors.FlavorsController,
    ]
    _CATALOGUES: list[type[interface.CatalogueController]] = [
        sqlite_catalogue.CatalogueController,
        redis_catalogue.CatalogueController,
        postgresql_catalogue.CatalogueController,
    ]
