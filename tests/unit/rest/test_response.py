"""Responses without what operations have no use for."""

from __future__ import annotations

from collections.abc import Callable

import falcon
import pytest

from zaqar_gevent.rest.response import Response


def _set_vary_twice(resp: falcon.Response) -> None:
    resp.append_header('Vary', 'Accept')
    resp.append_header('Vary', 'Origin')


@pytest.mark.parametrize(
    'change',
    [
        lambda resp: None,
        lambda resp: setattr(resp, 'location', '/v2/queues/\xe9/messages?ids=1,2'),
        lambda resp: setattr(resp, 'content_type', 'application/json-home'),
        lambda resp: setattr(resp, 'cache_control', ['max-age=86400']),
        lambda resp: resp.set_header('Retry-After', '5'),
        lambda resp: resp.set_headers({'Allow': 'GET, HEAD'}),
        _set_vary_twice,
        lambda resp: setattr(resp, 'data', b'{}'),
        lambda resp: setattr(resp, 'status', 201),
    ],
)
def test_a_response_is_set_as_falcon_sets_it(change: Callable[[falcon.Response], None]) -> None:
    expected, resp = falcon.Response(), Response()
    change(expected)
    change(resp)
    assert resp.headers == expected.headers
    assert resp.data == (expected.data or b'')
    assert resp.status == expected.status
