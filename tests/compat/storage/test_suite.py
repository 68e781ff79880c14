"""Upstream's storage suites, run against the embedded store."""

import pathlib
import shutil
import tempfile
import unittest
import uuid
from unittest import mock

from oslo_utils import timeutils
from zaqar import tests as testing
from zaqar.storage import errors, pooling
from zaqar.tests.unit.storage import base

from tests.compat import impossible
from zaqar_gevent.storage.sqlite import (
    ControlDriver,
    DataDriver,
    catalogue,
    claims,
    flavors,
    messages,
    pools,
    queues,
    spools,
    subscriptions,
)

CONFIGURATION = """
[DEFAULT]
pooling = {pooling}
admin_mode = True
unreliable = True
[drivers]
message_store = sqlite
management_store = sqlite
[drivers:message_store:sqlite]
uri = sqlite:///{directory}/{messages}
[drivers:management_store:sqlite]
uri = sqlite:///{directory}/store.db
[pooling:catalog]
enable_virtual_pool = False
"""


class OneFile:
    """Messages and management in one new file."""

    driver_class = DataDriver
    control_driver_class = ControlDriver
    messages = 'store.db'
    pooling = False

    def setUp(self):
        self.directory = tempfile.mkdtemp()
        self.config_file = f'{self.directory}/zaqar.conf'
        with open(self.config_file, 'w') as file:
            file.write(
                CONFIGURATION.format(
                    directory=self.directory,
                    messages=self.messages,
                    pooling=self.pooling,
                )
            )
        # First in, last out: some suites clean up through the drivers.
        self.addCleanup(shutil.rmtree, self.directory)
        self.addCleanup(self.close_drivers)
        super().setUp()

    def close_drivers(self):
        self.driver.close()
        self.control.close()


class TwoFiles(OneFile):
    """Messages in another file than management, as with pools."""

    messages = 'messages.db'


class Pooled(OneFile):
    """Four pools, each a file, where upstream's suite has databases of one MongoDB."""

    driver_class = pooling.DataDriver
    pooling = True
    # Upstream's setUp sets it to a MongoDB's before it makes pools under it.
    mongodb_url = property(lambda self: f'sqlite:///{self.directory}', lambda self, url: None)

    def close_drivers(self):
        for driver in self.driver._pool_catalog._drivers.values():
            driver.close()
        self.control.close()


class ManagementOnly(OneFile):
    """For the suites of what only the control driver has."""

    driver_class = ControlDriver


class QueuesTest(OneFile, base.QueueControllerTest):
    controller_class = queues.QueueController


class _QueuesOfDriver(spools.QueueController):
    def __init__(self, driver):
        super().__init__(driver, driver.control_driver.queue_controller)


class QueuesWithMessagesTest(OneFile, base.QueueControllerTest):
    controller_class = _QueuesOfDriver


class QueuesOfTwoFilesTest(TwoFiles, base.QueueControllerTest):
    controller_class = _QueuesOfDriver


class QueuesOfControlDriverTest(ManagementOnly, base.QueueControllerTest):
    controller_class = queues.QueueController


class MessagesTest(OneFile, base.MessageControllerTest):
    controller_class = messages.MessageController
    gc_interval = 1


class MessagesOfTwoFilesTest(TwoFiles, base.MessageControllerTest):
    controller_class = messages.MessageController
    gc_interval = 1


class PooledMessagesTest(Pooled, base.MessageControllerTest):
    controller_class = pooling.MessageController
    gc_interval = 1


class FullTimeToLive:
    """Claims that live as long as was asked for, where upstream's may end a second earlier."""

    def test_delete_message_expired_claim(self):
        """Upstream's test of this name, in which a second more passes."""
        target = {'project': self.project}
        new = [{'ttl': 60, 'body': {}} for _ in range(3)]
        self.message_controller.post(self.queue_name, new, client_uuid=uuid.uuid1(), **target)
        _, held = self.controller.create(self.queue_name, {'ttl': 2, 'grace': 2}, **target)
        later = timeutils.utcnow_ts() + 3
        with mock.patch('oslo_utils.timeutils.utcnow_ts', return_value=later):
            ids = [message['id'] for message in held]
            self.message_controller.delete(self.queue_name, ids.pop(), **target)
            self.message_controller.bulk_delete(self.queue_name, ids, **target)


class ClaimsTest(FullTimeToLive, OneFile, base.ClaimControllerTest):
    controller_class = claims.ClaimController


class ClaimsOfTwoFilesTest(FullTimeToLive, TwoFiles, base.ClaimControllerTest):
    controller_class = claims.ClaimController


class PooledClaimsTest(FullTimeToLive, Pooled, base.ClaimControllerTest):
    controller_class = pooling.ClaimController

    def setUp(self):
        super().setUp()
        # A dead letter queue has to be in the pool of its queue, which is drawn by lot.
        catalogue = self.control.catalogue_controller
        pool = catalogue.get(self.project, self.queue_name)['pool']
        catalogue.insert(self.project, 'DLQ', pool)


class SubscriptionsTest(OneFile, base.SubscriptionControllerTest):
    controller_class = subscriptions.SubscriptionController


class PoolsTest(ManagementOnly, base.PoolsControllerTest):
    controller_class = pools.PoolsController

    def test_the_last_pool_of_a_flavor_cannot_be_deleted(self):
        with testing.expect(errors.PoolInUseByFlavor):
            self.pools_controller.delete(self.pool1)

    def test_a_flavor_refuses_a_pool_that_can_do_less(self):
        with testing.expect(errors.PoolCapabilitiesMismatch):
            self.pools_controller.create(
                str(uuid.uuid1()), 100, 'redis://localhost', flavor=self.flavor, options={}
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
