"""The same operations over REST and over WebSocket, in both envelopes, JSON and MsgPack.

Each caller performs an operation by its name and returns status and body in one form, that of
the WebSocket, so that one test can compare them all.
"""

from __future__ import annotations

import itertools
import json
import re
import urllib.parse
import uuid
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgpack
import requests
import websocket

from zaqar_gevent.api import REGISTRY

TRANSPORTS = ('rest', 'ws-json', 'ws-msgpack', 'v2-json', 'v2-msgpack')


class Answer(NamedTuple):
    status: int
    body: Any


class Identity(NamedTuple):
    """Who calls: a client of a project."""

    project_id: str = 'demo'
    client_id: str = '3381af92-2b9e-11e3-b191-71861300734c'

    def headers(self) -> dict[str, str]:
        return {'Client-ID': self.client_id, 'X-Project-ID': self.project_id}


def new_identity() -> Identity:
    """A client of a project that nobody else uses."""
    return Identity(uuid.uuid4().hex, str(uuid.uuid4()))


class WebSocketCaller:
    """Calls in upstream's envelope over one connection."""

    subprotocols: Sequence[str] = ()

    def __init__(
        self, url: str, *, binary: bool, identity: Identity | None = None, **options: Any
    ) -> None:
        self.identity = identity or new_identity()
        self._binary = binary
        self.socket = websocket.create_connection(
            url, timeout=60, subprotocols=list(self.subprotocols), **options
        )

    def call(self, action: str, headers: dict[str, str] | None = None, **arguments: Any) -> Answer:
        return self.send(
            {
                'action': action,
                'headers': self.identity.headers() if headers is None else headers,
                'body': arguments,
            }
        )

    def send(self, document: Any) -> Answer:
        """Send any document and get the answer."""
        if self._binary:
            return self.send_raw(msgpack.packb(document))
        return self.send_raw(json.dumps(document).encode())

    def send_raw(self, payload: bytes) -> Answer:
        """Send any bytes in a frame of this caller's type and get the answer."""
        answer = self.exchange(payload)
        return Answer(answer['headers']['status'], answer['body'])

    def exchange(self, payload: bytes) -> dict[str, Any]:
        """Send any bytes and get the whole answer, envelope included."""
        opcode = websocket.ABNF.OPCODE_BINARY if self._binary else websocket.ABNF.OPCODE_TEXT
        self.socket.send(payload, opcode)
        received = self.socket.recv()
        answer: dict[str, Any]
        if self._binary:
            assert isinstance(received, bytes)
            answer = msgpack.unpackb(received)
        else:
            assert isinstance(received, str)
            answer = json.loads(received)
        return answer

    def close(self) -> None:
        self.socket.close()


class CompactCaller(WebSocketCaller):
    """Calls in `zaqar.v2` over one connection, one after the other."""

    subprotocols = ('zaqar.v2',)

    def __init__(self, url: str, *, binary: bool, identity: Identity | None = None) -> None:
        super().__init__(url, binary=binary, identity=identity)
        self._ids = itertools.count(1)

    def send(self, document: Any) -> Answer:
        if isinstance(document, dict):
            document = {'id': next(self._ids), **document}
        return super().send(document)

    def send_raw(self, payload: bytes) -> Answer:
        answer = self.exchange(payload)
        return Answer(answer['status'], answer['body'])


class RestCaller:
    """Calls over HTTP, by the routes of the registry."""

    def __init__(self, url: str, *, identity: Identity | None = None) -> None:
        self.identity = identity or new_identity()
        self.url = url
        self.session = requests.Session()

    def call(self, action: str, headers: dict[str, str] | None = None, **arguments: Any) -> Answer:
        operation = {op.name: op for op in REGISTRY}[action]
        members = dict(arguments)
        path = operation.route.fill(members)
        for name in re.findall(r'{(\w+)}', operation.route.path):
            del members[name]
        query = {
            parameter: _as_text(members.pop(operation.member(parameter)))
            for parameter in operation.route.query
            if operation.member(parameter) in members
        }
        if operation.filters and operation.filters in members:
            query.update(members.pop(operation.filters))
        if operation.payload:
            body = members.pop(operation.payload, None)
        else:
            body = members if members or operation.needs_body else None
        response = self.session.request(
            operation.route.methods[0],
            self.url + path,
            params=urllib.parse.urlencode(query, safe=','),
            data=None if body is None else json.dumps(body),
            headers={
                'Content-Type': (operation.media_types or ('application/json',))[0],
                **(self.identity.headers() if headers is None else headers),
            },
            timeout=60,
        )
        return Answer(response.status_code, _neutral(action, response))

    def close(self) -> None:
        self.session.close()


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ','.join(value)
    return str(value)


def _neutral(action: str, response: requests.Response) -> Any:
    """A REST body without its hrefs and links, as the WebSocket has it."""
    body = response.json() if response.content else None
    if response.status_code >= 400 or body is None:
        return body
    links = body.pop('links', None)
    if links:
        query = urllib.parse.urlsplit(links[0]['href']).query
        body['marker'] = urllib.parse.parse_qs(query)['marker'][0]
    reshape = _RESHAPE.get(action)
    return reshape(response, body) if reshape else body


def _posted(response: requests.Response, body: Any) -> Any:
    return {'message_ids': [_last(href) for href in body['resources']]}


def _one(response: requests.Response, body: Any) -> Any:
    return {'messages': _message(body)}


def _page(response: requests.Response, body: Any) -> Any:
    body.pop('href', None)
    return {**body, 'messages': [_message(message) for message in body['messages']]}


def _claimed(response: requests.Response, body: Any) -> Any:
    return {**_page(response, body), 'claim_id': _last(response.headers['Location'])}


def _stats(response: requests.Response, body: Any) -> Any:
    for end in ('oldest', 'newest'):
        if end in body['messages']:
            body['messages'][end]['id'] = _last(body['messages'][end].pop('href'))
    return body


def _named(response: requests.Response, body: Any) -> Any:
    """A page of named resources, under one member named for their kind."""
    [kind] = body.keys() & {'flavors', 'pools', 'queues', 'topics'}
    for entry in body[kind]:
        assert entry.pop('href') == f'/v2/{kind}/{entry["name"]}'
    return body


def _addressed(response: requests.Response, body: Any) -> Any:
    assert body.pop('href') == urllib.parse.urlsplit(response.url).path
    return body


_RESHAPE = {
    'claim_create': _claimed,
    'claim_get': _page,
    'flavor_get': _addressed,
    'flavor_list': _named,
    'flavor_update': _addressed,
    'message_get': _one,
    'message_get_many': _page,
    'message_list': _page,
    'message_post': _posted,
    'pool_get': _addressed,
    'pool_list': _named,
    'pool_update': _addressed,
    'queue_get_stats': _stats,
    'queue_list': _named,
    'topic_get_stats': _stats,
    'topic_list': _named,
}


def _message(message: dict[str, Any]) -> dict[str, Any]:
    href = urllib.parse.urlsplit(message.pop('href'))
    assert _last(href.path) == message['id']
    message['claim_id'] = urllib.parse.parse_qs(href.query).get('claim_id', [None])[0]
    return message


def _last(href: str) -> str:
    return href.rsplit('/', 1)[-1]


def connect(transport: str, url: str, websocket_url: str, identity: Identity | None = None) -> Any:
    """A caller over the named transport."""
    if transport == 'rest':
        return RestCaller(url, identity=identity)
    kind = CompactCaller if transport.startswith('v2') else WebSocketCaller
    return kind(websocket_url, binary=transport.endswith('msgpack'), identity=identity)
