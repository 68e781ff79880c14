"""Requests that Falcon makes ready only when somebody asks."""

from __future__ import annotations

from typing import Any

import falcon
import falcon.testing
import pytest

from zaqar_gevent.rest.request import Request

# What a responder may ask a request of Falcon for, and what needs no request over a network.
_ATTRIBUTES = (
    *('method', 'path', 'query_string', 'params', 'content_type', 'content_length', 'env'),
    *('accept', 'client_accepts_json', 'uri', 'url', 'relative_uri', 'host', 'scheme', 'port'),
    *('headers', 'remote_addr', 'access_route', 'forwarded', 'prefix', 'user_agent', 'auth'),
    *('uri_template', 'is_websocket', 'cookies', 'range', 'if_match', 'date'),
)


def _environ(path: str = '/v2/queues/q', query: str = 'limit=3&a=b,c') -> dict[str, Any]:
    headers = {'Content-Type': 'application/json', 'Accept': 'text/html', 'Cookie': 'a=b'}
    return falcon.testing.create_environ(path, query, method='POST', headers=headers, body='{}')


@pytest.mark.parametrize('name', _ATTRIBUTES)
def test_a_request_is_as_falcon_has_it(name: str) -> None:
    environ = _environ()
    options = falcon.RequestOptions()
    expected = getattr(falcon.Request(environ, options), name)
    assert getattr(Request(environ, options), name) == expected


@pytest.mark.parametrize('path', ['//v2/queues/\xc3\xa9', '///v2/queues/\xc3\xa9'])
def test_paths_begin_with_one_slash(path: str) -> None:
    request = Request({**_environ(), 'PATH_INFO': path})
    assert request.path == '/v2/queues/é'
    assert request.relative_uri.startswith('/v2/')
    assert request.path == '/v2/queues/é'


@pytest.mark.parametrize('path', ['/v2/queues/\xc3\xa9', '/v2/queues/\xff', ''])
def test_paths_are_read_as_falcon_reads_them(path: str) -> None:
    environ = {**_environ(), 'PATH_INFO': path}
    assert Request(environ).path == falcon.Request(environ).path


def test_what_was_set_before_a_request_is_ready_stays() -> None:
    req = Request(_environ())
    req.query['limit'] = 3
    req.context.of_a_test = True
    assert req.params == {'limit': '3', 'a': 'b,c'}
    assert (req.query, req.context.of_a_test) == ({'limit': 3}, True)


def test_an_attribute_that_falcon_lacks_is_missing() -> None:
    req = Request(_environ())
    for _ in range(2):
        with pytest.raises(AttributeError, match='nothing_of_the_kind'):
            _ = req.nothing_of_the_kind
