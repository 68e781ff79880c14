"""The AsyncAPI 3.0 document of the WebSocket API, from the operations, in the default envelope."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypedDict

from zaqar_gevent.api import schemas
from zaqar_gevent.api.operation import Operation
from zaqar_gevent.api.schemas import Schema, Schemas

Document = dict[str, Any]

_CHANNEL = '#/channels/websocket'


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


def build_asyncapi(operations: Iterable[Operation]) -> Document:
    """Describe the actions of `operations`, each an operation of the same name."""
    offered = list(operations)
    results = [kind for op in offered for kind in schemas.results(op).values()]
    known = Schemas([*(op.request for op in offered), *results, ErrorBody, Echo])
    messages = {
        'error': _message('error', 'A refusal', _answer({'type': 'integer'}, known, [ErrorBody]))
    }
    for operation in offered:
        messages[_asked(operation)] = _request(operation, known)
        messages[_answered(operation)] = _reply(operation, known)
    document = _frame(messages, offered)
    document['components'] = {'schemas': known.components_of(document)}
    return document


def _frame(messages: Document, operations: list[Operation]) -> Document:
    return {
        'asyncapi': '3.0.0',
        'info': {
            'title': 'OpenStack Messaging (Zaqar) over WebSocket',
            'version': '2',
            'description': 'What this server offers over WebSocket. A text frame holds a request '
            'in JSON, a binary frame one in MsgPack; each is answered in its own encoding, in '
            'order.',
            'license': {'name': 'Apache-2.0'},
        },
        'defaultContentType': 'application/json',
        'channels': {
            'websocket': {
                'address': '/v2/ws',
                'description': 'Also at `/`.',
                'messages': messages,
                'bindings': {'ws': {'method': 'GET'}},
            }
        },
        'operations': {operation.name: _operation(operation) for operation in operations},
    }


def _operation(operation: Operation) -> Document:
    rule = f'Policy rule: `{operation.policy}`.' if operation.policy else 'Open to everybody.'
    return {
        'action': 'receive',
        'channel': {'$ref': _CHANNEL},
        'summary': operation.summary,
        'description': f'{schemas.description_of(operation)}\n\n{rule}',
        'messages': [_reference(_asked(operation))],
        'reply': {
            'channel': {'$ref': _CHANNEL},
            'messages': [_reference(_answered(operation)), _reference('error')],
        },
    }


def _asked(operation: Operation) -> str:
    return operation.name


def _answered(operation: Operation) -> str:
    return f'{operation.name}_answer'


def _reference(message: str) -> Document:
    return {'$ref': f'{_CHANNEL}/messages/{message}'}


def _message(name: str, title: str, payload: Schema) -> Document:
    return {'name': name, 'title': title, 'payload': payload}


def _request(operation: Operation, known: Schemas) -> Document:
    members = known.members(operation.request).values()
    body = schemas.object_of(members, closed=schemas.is_closed(operation.request))
    required = ['action']
    properties: Document = {'action': {'const': operation.name}, 'headers': {'type': 'object'}}
    payload: Document = {'action': operation.name}
    if not operation.anonymous:
        required.append('headers')
        properties['headers'] = _HEADERS
        payload['headers'] = _HEADERS_EXAMPLE
    properties['body'] = body
    if 'required' in body:
        required.append('body')
    if members:
        payload['body'] = schemas.example_of(members)
    schema = {'type': 'object', 'required': required, 'properties': properties}
    message = _message(operation.name, f'The request {operation.name}', schema)
    return message | {'examples': [{'name': operation.name, 'payload': payload}]}


_HEADERS: Schema = {
    'type': 'object',
    'description': 'Their names are read in any case.',
    'required': ['Client-ID', 'X-Project-ID'],
    'properties': {'Client-ID': schemas.CLIENT_ID, 'X-Project-ID': schemas.PROJECT_ID},
    'additionalProperties': {'type': 'string'},
}
_HEADERS_EXAMPLE = {
    'Client-ID': schemas.CLIENT_ID_EXAMPLE,
    'X-Project-ID': schemas.PROJECT_ID_EXAMPLE,
}


def _reply(operation: Operation, known: Schemas) -> Document:
    results = schemas.results(operation)
    payload = _answer({'enum': list(results)}, known, list(results.values()))
    return _message(_answered(operation), f'The answer to {operation.name}', payload)


def _answer(status: Schema, known: Schemas, bodies: list[Any]) -> Schema:
    """The envelope of an answer with one of these bodies."""
    choices = [known.of(body) for body in dict.fromkeys(bodies)]
    return {
        'type': 'object',
        'required': ['request', 'headers', 'body'],
        'properties': {
            'request': known.of(Echo),
            'headers': {
                'type': 'object',
                'required': ['status'],
                'properties': {'status': status},
            },
            'body': choices[0] if len(choices) == 1 else {'anyOf': choices},
        },
    }
