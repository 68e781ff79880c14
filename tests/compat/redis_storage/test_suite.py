"""Upstream's storage suites, run against the native driver for Redis."""

import math
import pathlib
import tempfile
import time
import types
import unittest
import uuid
from unittest import mock

from oslo_utils import timeutils, uuidutils
from zaqar import tests as testing
from zaqar.storage import errors, pooling
from zaqar.tests.unit.storage import base

from tests.compat import impossible
from zaqar_gevent.storage import drivers
from zaqar_gevent.storage.redis import (
    catalogue,
    claims,
    flavors,
    messages,
    pools,
    queues,
    subscriptions,
)
from zaqar_gevent.storage.redis.driver import ControlDriver, DataDriver

CONFIGURATION = """
[DEFAULT]
pooling = {pooling}
admin_mode = True
unreliable = True
[drivers]
message_store = redis
management_store = redis
redis_driver = native
[drivers:message_store:redis]
uri = {redis}&dbid={database}
[drivers:management_store:redis]
uri = {redis}
[pooling:catalog]
enable_virtual_pool = False
"""


class OneServer:
    """Messages and management on one server."""

    driver_class = DataDriver
    control_driver_class = ControlDriver
    database = 0
    pooling = False

    def setUp(self):
        with tempfile.NamedTemporaryFile('w', suffix='.conf', delete=False) as file:
            file.write(
                CONFIGURATION.format(
                    redis=self.redis.patient_uri, database=self.database, pooling=self.pooling
                )
            )
        self.config_file = file.name
        self.addCleanup(pathlib.Path(file.name).unlink)
        # First in, last out: some suites clean up through the drivers.
        self.addCleanup(self.close_drivers)
        self.skip_sleeps()
        super().setUp()

    def skip_sleeps(self):
        """Where upstream's suite sleeps, set the driver's clock forward instead."""
        read, ahead = timeutils.utcnow_ts, [0]

        def sleep(seconds):
            ahead[0] += math.ceil(seconds)

        for patched in (
            mock.patch.object(base, 'time', types.SimpleNamespace(sleep=sleep, time=time.time)),
            mock.patch.object(timeutils, 'utcnow_ts', lambda **more: read(**more) + ahead[0]),
        ):
            patched.start()
            self.addCleanup(patched.stop)

    def close_drivers(self):
        self.driver.close()
        self.control.close()


class TwoServers(OneServer):
    """Messages elsewhere than management, as with pools."""

    database = 1


class Pooled(OneServer):
    """Four pools, each a database, where upstream's suite has databases of one MongoDB."""

    driver_class = pooling.DataDriver
    pooling = True
    # Upstream's setUp sets it to a MongoDB's before it makes pools under it.
    mongodb_url = property(lambda self: f'{self.redis.uri}', lambda self, url: None)

    def setUp(self):
        drivers.load_redis_by_choice()
        super().setUp()

    def close_drivers(self):
        for driver in self.driver._pool_catalog._drivers.values():
            driver.close()
        self.control.close()


class ManagementOnly(OneServer):
    """For the suites of what only the control driver has."""

    driver_class = ControlDriver


class QueuesTest(OneServer, base.QueueControllerTest):
    controller_class = queues.QueueController


class _QueuesOfDriver(queues.SpooledQueues):
    def __init__(self, driver):
        super().__init__(driver, driver.control_driver.queue_controller)


class QueuesWithMessagesTest(OneServer, base.QueueControllerTest):
    controller_class = _QueuesOfDriver


class QueuesOfTwoServersTest(TwoServers, base.QueueControllerTest):
    controller_class = _QueuesOfDriver


class QueuesOfControlDriverTest(ManagementOnly, base.QueueControllerTest):
    controller_class = queues.QueueController


class MessagesTest(OneServer, base.MessageControllerTest):
    controller_class = messages.MessageController
    gc_interval = 1

    def test_expired_messages_are_collected(self):
        self.queue_controller.create(self.queue_name)
        for count in (1, 100):
            for _ in range(count):
                self.controller.post(
                    self.queue_name,
                    [{'ttl': 0, 'body': {}}],
                    client_uuid=uuidutils.generate_uuid(),
                )
            self.assertEqual(count, self.controller.gc())

    def test_a_client_must_be_a_uuid(self):
        messages = [{'ttl': 300, 'body': 'di mo fy'}]
        self.assertRaises(ValueError, self.controller.post, self.queue_name, messages, 'no-uuid')

    def test_an_empty_queue_has_no_first_message(self):
        self.queue_controller.create('empty')
        self.assertRaises(errors.QueueIsEmpty, self.controller.first, 'empty')


class MessagesOfTwoServersTest(TwoServers, base.MessageControllerTest):
    controller_class = messages.MessageController
    gc_interval = 1


class PooledMessagesTest(Pooled, base.MessageControllerTest):
    controller_class = pooling.MessageController
    gc_interval = 1


class ClaimsTest(OneServer, base.ClaimControllerTest):
    controller_class = claims.ClaimController

    def test_a_claim_of_a_deleted_queue_does_not_exist(self):
        queue_name = 'no-such-claim'
        epoch = '000000000000000000000000'
        self.queue_controller.create(queue_name)
        self.assertRaises(errors.ClaimDoesNotExist, self.controller.get, queue_name, epoch)
        claim_id, _ = self.controller.create(queue_name, {'ttl': 1, 'grace': 0})
        base.time.sleep(1)
        lease = {'ttl': 1, 'grace': 0}
        with testing.expect(errors.ClaimDoesNotExist):
            self.controller.update(queue_name, claim_id or epoch, lease)
        claim_id, _ = self.controller.create(queue_name, {'ttl': 100, 'grace': 0})
        self.queue_controller.delete(queue_name)
        with testing.expect(errors.ClaimDoesNotExist):
            self.controller.get(queue_name, claim_id or epoch)

    def test_claims_that_have_expired_are_collected(self):
        self.queue_controller.create(self.queue_name)
        for _ in range(10):
            self.message_controller.post(
                self.queue_name,
                [{'ttl': 300, 'body': 'yo gabba'}],
                client_uuid=uuidutils.generate_uuid(),
            )
        now = timeutils.utcnow_ts()
        with mock.patch('oslo_utils.timeutils.utcnow_ts') as clock:
            clock.return_value = now - 1
            self.controller.create(self.queue_name, {'ttl': 1, 'grace': 60})
        key = f'.{self.queue_name}.claims'
        self.assertEqual(1, self.redis.client.zcard(key))
        self.message_controller.gc()
        self.assertEqual(0, self.redis.client.zcard(key))


class ClaimsOfTwoServersTest(TwoServers, base.ClaimControllerTest):
    controller_class = claims.ClaimController


class PooledClaimsTest(Pooled, base.ClaimControllerTest):
    controller_class = pooling.ClaimController

    def setUp(self):
        super().setUp()
        # A dead letter queue has to be in the pool of its queue, which is drawn by lot.
        catalogue = self.control.catalogue_controller
        pool = catalogue.get(self.project, self.queue_name)['pool']
        catalogue.insert(self.project, 'DLQ', pool)


class SubscriptionsTest(OneServer, base.SubscriptionControllerTest):
    controller_class = subscriptions.SubscriptionController


class PoolsTest(ManagementOnly, base.PoolsControllerTest):
    controller_class = pools.PoolsController

    def test_the_last_pool_of_a_flavor_cannot_be_deleted(self):
        with testing.expect(errors.PoolInUseByFlavor):
            self.pools_controller.delete(self.pool1)

    def test_a_flavor_refuses_a_pool_that_can_do_less(self):
        with testing.expect(errors.PoolCapabilitiesMismatch):
            self.pools_controller.create(
                str(uuid.uuid1()), 100, 'mongodb://localhost', flavor=self.flavor, options={}
            )

    def test_two_pools_cannot_have_one_uri(self):
        with testing.expect(errors.PoolAlreadyExists):
            self.pools_controller.create('other', 100, self.uri, options={})


class CatalogueTest(ManagementOnly, base.CatalogueControllerTest):
    controller_class = catalogue.CatalogueController


class FlavorsTest(ManagementOnly, base.FlavorsControllerTest1):
    controller_class = flavors.FlavorsController


class ImpossibleTest(unittest.TestCase):
    def test_the_listed_tests_exist(self):
        for name in impossible.read(pathlib.Path(__file__).parent):
            class_name, _, method = name.partition('::')
            self.assertTrue(hasattr(globals()[class_name], method), name)
