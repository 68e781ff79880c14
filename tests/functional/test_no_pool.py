"""Pooling before there is a pool."""

from __future__ import annotations

import pathlib
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.callers import TRANSPORTS, connect
from tests.server_process import ServerProcess
from tests.stores import POOLED


@pytest.fixture(scope='module')
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    directory: pathlib.Path = tmp_path_factory.mktemp('server')
    config = POOLED.format(redis='redis://127.0.0.1:1', directory=directory)
    with ServerProcess(directory, config=config) as process:
        yield process


@pytest.mark.parametrize('transport', TRANSPORTS)
def test_a_queue_without_a_pool_is_empty(server: ServerProcess, transport: str) -> None:
    caller: Any = connect(transport, server.url, server.websocket_url)
    subscription = {'queue_name': 'orders', 'subscription_id': str(uuid.uuid4())}
    listed = caller.call('subscription_list', queue_name='orders')
    assert (listed.status, listed.body['subscriptions']) == (200, [])
    assert caller.call('subscription_get', **subscription).status == 404
    assert caller.call('subscription_update', **subscription, ttl=100).status == 404
    assert caller.call('subscription_delete', **subscription).status == 204
    claim = {'queue_name': 'orders', 'claim_id': str(uuid.uuid4())}
    assert caller.call('claim_get', **claim).status == 404
    assert caller.call('claim_delete', **claim).status == 204
    caller.close()


@pytest.mark.parametrize('transport', TRANSPORTS)
def test_a_queue_cannot_be_made_before_there_is_a_pool(
    server: ServerProcess, transport: str
) -> None:
    caller: Any = connect(transport, server.url, server.websocket_url)
    message = {'body': 1, 'ttl': 60}
    for refused in (
        caller.call('queue_create', queue_name='orders'),
        caller.call('message_post', queue_name='orders', messages=[message]),
        caller.call('subscription_create', queue_name='orders', subscriber='http://127.0.0.1:1'),
    ):
        assert (refused.status, refused.body['code']) == (409, 'conflict')
        assert 'PUT /v2/pools/' in str(refused.body)
    caller.close()
