"""The browser client in Node, when the server's store is made anew or restored from a backup."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest

from tests.browser.hosts import HERE, Node, running_node
from tests.callers import Identity, RestCaller
from tests.functional.test_push import post
from tests.functional.test_store_replaced import RESTORED, Replaceable


@pytest.fixture
def node() -> Iterator[Node]:
    with running_node(HERE / 'restarts.mjs') as node:
        yield node


@pytest.mark.parametrize('transport', ['websocket', 'rest'])
@pytest.mark.parametrize('how', RESTORED)
@pytest.mark.parametrize('asked', [{'marker': ''}, {}], ids=['all', 'new'])
def test_it_begins_again_and_says_so(
    node: Node, tmp_path: pathlib.Path, transport: str, how: str, asked: dict[str, str]
) -> None:
    with Replaceable(tmp_path / 'state') as server:
        rest = RestCaller(server.url, identity=Identity('demo'))
        post(rest, 1, 2)
        server.back_up()
        post(rest, 3, 4, 5)
        node.call('follow', server.url, {'transport': transport}, asked)
        seen = [1, 2, 3, 4, 5] if asked else []
        assert node.call('read', len(seen)) == seen
        if not asked:
            # It has got something by which it knows where it stands.
            post(rest, 6)
            assert node.call('read', 1) == [6]
        server.restart(how)
        post(rest, *range(10, 20))
        expected = [*RESTORED[how], *range(10, 20)]
        assert node.call('read', len(expected)) == expected
        assert node.call('restarts') == {'count': 1, 'told': ['orders']}
        node.call('close')
