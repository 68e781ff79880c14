"""The blocking client is what is written from the asyncio client."""

from __future__ import annotations

import inspect
import pathlib

import pytest

import zaqar_gevent.client
import zaqar_gevent.client.aio
from tools import blocking_client

CLASSES = ('Claim', 'Client', 'Consumer', 'Message', 'Queue', 'Subscription', 'Topic', 'Worker')


@pytest.mark.parametrize('path', blocking_client.files(), ids=lambda path: path.name)
def test_a_module_is_current(path: pathlib.Path) -> None:
    assert path.read_text() == blocking_client.files()[path], 'run tox -e genblocking'


def test_each_module_is_written_or_by_hand_in_both() -> None:
    sources = {path.name for path in blocking_client.SOURCES.glob('*.py')}
    targets = {path.name for path in blocking_client.TARGETS.glob('*.py')}
    assert targets - sources == {'socket_stream.py', 'waiters.py', 'websocket.py'}
    assert sources <= targets


@pytest.mark.parametrize('name', CLASSES)
def test_both_clients_offer_the_same(name: str) -> None:
    here, there = getattr(zaqar_gevent.client, name), getattr(zaqar_gevent.client.aio, name)
    dunders = {'__aenter__': '__enter__', '__aexit__': '__exit__', '__anext__': '__next__'}
    offered = {dunders.get(one, one).replace('__aiter__', '__iter__') for one in dir(there)}
    assert offered == set(dir(here))


@pytest.mark.parametrize('name', CLASSES)
def test_help_shows_what_users_use(name: str) -> None:
    kind = getattr(zaqar_gevent.client, name)
    public = {one for one in dir(kind) if not one.startswith('_')}
    internal = {'action', 'arguments', 'call', 'connector', 'page', 'perform', 'read_claim'}
    if name != 'Client':
        assert not public & (internal | {'client', 'requester', 'source', 'target'})
    for one in public:
        assert inspect.getdoc(inspect.getattr_static(kind, one)) or name in ('Claim', 'Message')
