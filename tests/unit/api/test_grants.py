"""What a client was let in with: how long it lasts, and what it is refused after that."""

from __future__ import annotations

import functools
import pathlib
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from oslo_config import cfg

from zaqar_gevent import conf as configuration
from zaqar_gevent.api import errors
from zaqar_gevent.api.broker import Broker
from zaqar_gevent.api.context import Caller, Context
from zaqar_gevent.api.dispatcher import Dispatcher
from zaqar_gevent.api.grants import UNLIMITED, Grant, Reason
from zaqar_gevent.api.policy import Policy
from zaqar_gevent.api.signed_urls import SignedRequest
from zaqar_gevent.server import capabilities
from zaqar_gevent.storage.sqlite import ControlDriver, DataDriver
from zaqar_gevent.storage.stores import stores_of


def test_a_grant_ends_when_it_expires() -> None:
    assert Grant(time.time() + 60).reason is None
    assert Grant(time.time()).reason is Reason.TOKEN_EXPIRED
    assert Grant(time.time(), Reason.SIGNATURE_EXPIRED).reason is Reason.SIGNATURE_EXPIRED
    assert Grant().reason is UNLIMITED.reason is None


def test_what_has_ended_cannot_be_prolonged() -> None:
    grant = Grant(time.time() - 1)
    assert grant.is_over
    grant.expires_at = time.time() + 60
    assert grant.reason is Reason.TOKEN_EXPIRED


def test_what_lasts_can_be_prolonged() -> None:
    grant = Grant(time.time() + 60)
    assert not grant.is_over
    grant.expires_at = time.time() + 120
    assert not grant.is_over


def test_the_first_reason_counts() -> None:
    grant = Grant()
    grant.end(Reason.PROJECT_CHANGED)
    grant.end(Reason.USER_CHANGED)
    assert grant.reason is Reason.PROJECT_CHANGED
    expired = Grant(time.time() - 1)
    expired.end(Reason.PROJECT_CHANGED)
    assert expired.reason is Reason.TOKEN_EXPIRED


@pytest.mark.parametrize('expires', ['', 'never', '99999-01-01T00:00:00', '1'])
def test_a_pre_signed_url_without_a_time_grants_nothing(expires: str) -> None:
    assert SignedRequest('signature', expires, 'GET', '/').grant.reason is Reason.SIGNATURE_EXPIRED


@pytest.mark.parametrize('reason', Reason)
def test_every_reason_is_explained(reason: Reason) -> None:
    assert reason.description.endswith('.')
    assert reason.refusal.status == (401 if reason.value.startswith('token') else 403)


@pytest.fixture
def dispatch(tmp_path: pathlib.Path) -> Iterator[Any]:
    """Performs operations on a store of its own, with a grant."""
    conf = configuration.load(cfg.ConfigOpts(), [])
    configuration.use_embedded_store(conf, tmp_path)
    control = ControlDriver(conf, None)
    storage = DataDriver(conf, None, control)
    stores = stores_of(storage, control)
    broker = Broker(conf, stores, capabilities(conf, stores.features), 1.0)
    dispatcher = Dispatcher(broker, Policy(conf))
    caller = Caller('demo', str(uuid.uuid4()))

    def call(grant: Grant, action: str, **arguments: Any) -> Any:
        context = Context(broker, caller, grant=grant)
        operation = dispatcher.find(action)
        dispatcher.authorize(operation, context, arguments)
        return dispatcher.perform(operation, context, arguments)

    yield call
    storage.close()
    control.close()


def test_a_request_that_was_kept_waiting_is_refused_when_its_grant_has_ended(dispatch: Any) -> None:
    grant = Grant()
    create = functools.partial(dispatch, grant, 'queue_create', queue_name='orders')
    assert create().status == 201
    grant.end(Reason.PROJECT_CHANGED)
    with pytest.raises(errors.Forbidden, match='another project'):
        create()
    with pytest.raises(errors.Unauthorized, match='expired'):
        dispatch(Grant(time.time()), 'queue_create', queue_name='orders')
