"""The AsyncAPI 3.0 document of the WebSocket API, from the operations, in both envelopes.

Each envelope is a channel, and an operation of the API is an operation on each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, TypedDict

from zaqar_gevent.api import schemas
from zaqar_gevent.api.ending import End
from zaqar_gevent.api.grants import Reason
from zaqar_gevent.api.messages import Message as PushedMessage
from zaqar_gevent.api.operation import Operation
from zaqar_gevent.api.schemas import Schema, Schemas
from zaqar_gevent.websocket.compact import SUBPROTOCOL

Document = dict[str, Any]


class ErrorBody(TypedDict):
    """`code` is meant for programs; `error` says what was wrong, where, and what is allowed."""

    error: str
    exception: str
    code: str


class Echo(TypedDict):
    """The request, without tokens."""

    action: str | None
    body: Any
    headers: dict[str, Any]
    api: str


class CompactError(TypedDict):
    """`code` is meant for programs; `description` says what was wrong, and what is allowed."""

    code: str
    title: str
    description: str


class Greeting(TypedDict):
    """What the server allows; sizes in bytes, times in seconds, 0 for no limit."""

    server: str
    protocol: str
    max_in_flight: int
    max_message_size: int
    ping_interval: float
    idle_timeout: float


class Authenticated(TypedDict):
    """The token was accepted."""

    message: str


class Nothing(TypedDict):
    """Nothing but that the request was answered."""


@dataclasses.dataclass(frozen=True, eq=False)
class Envelope:
    """How requests and answers are wrapped on one channel.

    prefix: of the names of its operations. request: the members beside action, headers and body,
        with an example of each. answer: wraps a status and one of several bodies.
    needs_headers: whether every request has to bring its own.
    """

    channel: str
    prefix: str
    description: str
    request: dict[str, tuple[Schema, Any]]
    answer: Callable[[Schema, Schema, Schemas], Schema]
    error: type
    needs_headers: bool


def _in_default(status: Schema, body: Schema, known: Schemas) -> Schema:
    headers = {'type': 'object', 'required': ['status'], 'properties': {'status': status}}
    return {
        'type': 'object',
        'required': ['request', 'headers', 'body'],
        'properties': {'request': known.of(Echo), 'headers': headers, 'body': body},
    }


def _in_compact(status: Schema, body: Schema, known: Schemas) -> Schema:
    return {
        'type': 'object',
        'required': ['id', 'status', 'body'],
        'properties': {'id': {'type': [*_ID['type'], 'null']}, 'status': status, 'body': body},
    }


_ID: Schema = {'type': ['integer', 'string']}

DEFAULT = Envelope(
    'websocket',
    '',
    'Also at `/`. Requests are answered in order.',
    {},
    _in_default,
    ErrorBody,
    needs_headers=True,
)
COMPACT = Envelope(
    'compact',
    'compact_',
    f'Also at `/`, with the subprotocol `{SUBPROTOCOL}`. Requests may be in flight together, and '
    'are answered as they are ready.',
    {'id': ({**_ID, 'description': 'Unique among the requests in flight.'}, 1)},
    _in_compact,
    CompactError,
    needs_headers=False,
)
ENVELOPES = (DEFAULT, COMPACT)

# Requests to the connection itself in the compact envelope: the answer, and their purpose.
SESSION_ACTIONS: dict[str, tuple[type, str]] = {
    'hello': (Greeting, 'Give headers that hold for the connection, a token among them.'),
    'ping': (Nothing, 'Be answered; needs no id.'),
    'authenticate': (Authenticated, 'Replace the token of the connection.'),
}
# What the server says without being asked: what it is, and its members.
_TEXT: Schema = {'type': 'string'}
_PUSHES: dict[str, tuple[str, dict[str, Schema], tuple[str, ...]]] = {
    'message': (
        'A message of a queue that is subscribed to, or one leased to a consumer.',
        {
            'subscription_id': _TEXT,
            'consumer_id': _TEXT,
            'queue_name': _TEXT,
            'marker': {**_TEXT, 'description': 'After which to resume the subscription.'},
        },
        ('queue_name', 'message'),
    ),
    'marker': (
        'How far the queue was read for a subscription with a filter, whose messages may be rare: '
        'resume it after this marker.',
        {'subscription_id': _TEXT, 'queue_name': _TEXT, 'marker': _TEXT},
        ('subscription_id', 'queue_name', 'marker'),
    ),
    'paused': (
        'A subscription whose messages the client did not take; resume it after the marker.',
        {'subscription_id': _TEXT, 'marker': {'type': ['string', 'null']}},
        ('subscription_id', 'marker'),
    ),
    'ended': (
        'A subscription or consumer has ended, though the client has not ended it; `reason` says '
        'why.',
        {
            'subscription_id': _TEXT,
            'consumer_id': _TEXT,
            'queue_name': _TEXT,
            'reason': {'enum': [reason.value for reason in (*Reason, *End)]},
            'description': _TEXT,
        },
        ('queue_name', 'reason', 'description'),
    ),
    'closing': (
        'The server is about to close the connection; come back after the time given.',
        {'reason': _TEXT, 'reconnect_after_ms': {'type': 'integer'}},
        ('reason', 'reconnect_after_ms'),
    ),
}


def build_asyncapi(operations: Iterable[Operation], bound: Iterable[Operation]) -> Document:
    """Describe the actions of `operations`, each an operation of the same name.

    bound: what can be asked of a connection only, and described in the compact envelope.
    """
    everywhere = list(operations)
    everything = [*everywhere, *bound]
    offered = {DEFAULT: everywhere, COMPACT: everything}
    results = [kind for op in everything for kind in schemas.results(op).values()]
    own = [kind for kind, _ in SESSION_ACTIONS.values()]
    errors = [envelope.error for envelope in ENVELOPES]
    requests = [op.request for op in everything]
    known = Schemas([*requests, *results, *errors, *own, Echo, PushedMessage])
    document = _frame(
        {
            envelope.channel: _channel(envelope, chosen, known)
            for envelope, chosen in offered.items()
        },
        {
            f'{envelope.prefix}{operation.name}': _operation(envelope, operation)
            for envelope, chosen in offered.items()
            for operation in chosen
        }
        | _own_operations(),
    )
    document['components'] = {'schemas': known.components_of(document)}
    return document


def _frame(channels: Document, operations: Document) -> Document:
    return {
        'asyncapi': '3.0.0',
        'info': {
            'title': 'OpenStack Messaging (Zaqar) over WebSocket',
            'version': '2',
            'description': 'What this server offers over WebSocket. A text frame holds a request '
            'in JSON, a binary frame one in MsgPack; each is answered in its own encoding.',
            'license': {'name': 'Apache-2.0'},
        },
        'defaultContentType': 'application/json',
        'channels': channels,
        'operations': operations,
    }


def _channel(envelope: Envelope, operations: list[Operation], known: Schemas) -> Document:
    refusal = envelope.answer({'type': 'integer'}, known.of(envelope.error), known)
    messages = {'error': _message('error', 'A refusal', refusal)}
    for operation in operations:
        messages[operation.name] = _request(envelope, operation, known)
        messages[_answered(operation.name)] = _reply(envelope, operation, known)
    binding: Document = {'method': 'GET'}
    if envelope is COMPACT:
        messages |= _own_messages(known)
        binding['headers'] = {
            'type': 'object',
            'properties': {'Sec-WebSocket-Protocol': {'const': SUBPROTOCOL}},
        }
    return {
        'address': '/v2/ws',
        'description': envelope.description,
        'messages': messages,
        'bindings': {'ws': binding},
    }


def _operation(envelope: Envelope, operation: Operation) -> Document:
    rule = f'Policy rule: `{operation.policy}`.' if operation.policy else 'Open to everybody.'
    return _asked(envelope, operation.name) | {
        'summary': operation.summary,
        'description': f'{schemas.description_of(operation)}\n\n{rule}',
    }


def _asked(envelope: Envelope, name: str) -> Document:
    answers = [_reference(envelope, _answered(name)), _reference(envelope, 'error')]
    return {
        'action': 'receive',
        'channel': {'$ref': f'#/channels/{envelope.channel}'},
        'messages': [_reference(envelope, name)],
        'reply': {
            'channel': {'$ref': f'#/channels/{envelope.channel}'},
            'messages': answers,
        },
    }


def _own_operations() -> Document:
    """The messages about the connection itself, from both sides."""
    asked = {
        f'{COMPACT.prefix}{name}': _asked(COMPACT, name) | {'summary': summary}
        for name, (_, summary) in SESSION_ACTIONS.items()
    }
    pushed = {
        f'{COMPACT.prefix}{name}': {
            'action': 'send',
            'channel': {'$ref': f'#/channels/{COMPACT.channel}'},
            'summary': summary,
            'messages': [_reference(COMPACT, name)],
        }
        for name, (summary, _, _) in _PUSHES.items()
    }
    return asked | pushed


def _own_messages(known: Schemas) -> Document:
    messages = {name: _message(name, f'The push {name}', _pushed(name, known)) for name in _PUSHES}
    for name, (result, _) in SESSION_ACTIONS.items():
        messages[name] = _wrapped(COMPACT, name, {}, {}, required=[])
        answer = COMPACT.answer({'const': 200}, known.of(result), known)
        messages[_answered(name)] = _message(_answered(name), f'The answer to {name}', answer)
    return messages


def _pushed(name: str, known: Schemas) -> Schema:
    _, members, required = _PUSHES[name]
    properties: Document = {'push': {'const': name}, **members}
    if 'message' in required:
        properties['message'] = known.of(PushedMessage)
    return {'type': 'object', 'required': ['push', *required], 'properties': properties}


def _answered(name: str) -> str:
    return f'{name}_answer'


def _reference(envelope: Envelope, message: str) -> Document:
    return {'$ref': f'#/channels/{envelope.channel}/messages/{message}'}


def _message(name: str, title: str, payload: Schema) -> Document:
    return {'name': name, 'title': title, 'payload': payload}


def _request(envelope: Envelope, operation: Operation, known: Schemas) -> Document:
    members = known.members(operation.request).values()
    body = schemas.object_of(members, closed=schemas.is_closed(operation.request))
    required = list(envelope.request)
    properties: Document = {'headers': {'type': 'object'}, 'body': body}
    payload: Document = {}
    if not operation.anonymous:
        properties['headers'] = _HEADERS if envelope.needs_headers else _OWN_HEADERS
        payload['headers'] = _HEADERS_EXAMPLE
        required += ['headers'] if envelope.needs_headers else []
    if 'required' in body:
        required.append('body')
    if members:
        payload['body'] = schemas.example_of(members)
    return _wrapped(envelope, operation.name, properties, payload, required=required)


def _wrapped(
    envelope: Envelope, name: str, properties: Document, payload: Document, *, required: list[str]
) -> Document:
    """A request by the name of its action, with an example."""
    schema = {
        'type': 'object',
        'required': ['action', *required],
        'properties': {
            **{member: kind for member, (kind, _) in envelope.request.items()},
            'action': {'const': name},
            **properties,
        },
    }
    given = {member: example for member, (_, example) in envelope.request.items()}
    example = {'name': name, 'payload': {**given, 'action': name, **payload}}
    return _message(name, f'The request {name}', schema) | {'examples': [example]}


_OWN_HEADERS: Schema = {
    'type': 'object',
    'description': 'Their names are read in any case. Those of the handshake and of `hello` hold '
    'where a request has none of its own.',
    'properties': {'Client-ID': schemas.CLIENT_ID, 'X-Project-ID': schemas.PROJECT_ID},
    'additionalProperties': {'type': 'string'},
}
_HEADERS: Schema = {
    **_OWN_HEADERS,
    'description': 'Their names are read in any case.',
    'required': ['Client-ID', 'X-Project-ID'],
}
_HEADERS_EXAMPLE = {
    'Client-ID': schemas.CLIENT_ID_EXAMPLE,
    'X-Project-ID': schemas.PROJECT_ID_EXAMPLE,
}


def _reply(envelope: Envelope, operation: Operation, known: Schemas) -> Document:
    results = schemas.results(operation)
    choices = [known.of(body) for body in dict.fromkeys(results.values())]
    body = choices[0] if len(choices) == 1 else {'anyOf': choices}
    payload = envelope.answer({'enum': list(results)}, body, known)
    name = _answered(operation.name)
    return _message(name, f'The answer to {operation.name}', payload)
