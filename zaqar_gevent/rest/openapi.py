"""The OpenAPI 3.1 document of the REST API, from the operations and the shapes of their results."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypedDict, Union, get_args, get_origin, get_type_hints

from zaqar_gevent.api import errors, messages, pools, queues, redrives, schemas, subscriptions
from zaqar_gevent.api.operation import Operation
from zaqar_gevent.api.schemas import Member, Schema, Schemas
from zaqar_gevent.rest import shapes

JSON = 'application/json'
Document = dict[str, Any]

# The methods whose requests have a body.
WITH_BODY = ('POST', 'PUT', 'PATCH')

# The operations that find what they would make or change in a state that does not allow it.
_CONFLICTING: tuple[Callable[..., Any], ...] = (
    messages.post_messages,
    pools.create_pool,
    queues.create_queue,
    queues.update_queue,
    redrives.create_redrive,
    subscriptions.create_subscription,
    subscriptions.update_subscription,
)

_UNAUTHORIZED = 401

# The parameters that say who asks.
_IDENTIFYING = ('ClientID', 'ProjectID')


class ErrorDocument(TypedDict):
    """`code` is meant for programs; `description` says what was wrong, where, what is allowed."""

    code: str
    title: str
    description: str


class _Offer(NamedTuple):
    """An operation under one of its methods."""

    method: str
    operation: Operation

    @property
    def has_body(self) -> bool:
        return self.method in WITH_BODY


def build_openapi(operations: Iterable[Operation]) -> Document:
    """Describe the routes of `operations`; each names its actions in `x-actions`."""
    offered = list(operations)
    known = Schemas([*(op.request for op in offered), *_body_types(offered), ErrorDocument])
    paths: dict[str, dict[str, Any]] = {}
    for path, offers in _by_path(offered).items():
        paths[path] = {
            method.lower(): _describe([offer for offer in offers if offer.method == method], known)
            for method in dict.fromkeys(offer.method for offer in offers)
        }
    document = _frame(paths)
    document['components']['schemas'] = known.components_of(document)
    return document


def body_type(operation: Operation, status: int) -> Any:
    """The type of the body that `operation` is answered with; None where there is none."""
    shape = shapes.SHAPES.get(operation.function)
    if status == 204:
        return None
    if shape is None:
        return schemas.results(operation)[status]
    returned = get_type_hints(shape)['return']
    if get_origin(returned) not in (Union, types.UnionType):
        return returned
    return next(kind for kind in get_args(returned) if kind is not type(None))


def failures(operation: Operation, *, has_body: bool) -> list[type[errors.APIError]]:
    """The errors that `operation` can end with in REST, beside failed authentication."""
    possible: dict[type[errors.APIError], bool] = {
        errors.BadRequest: not operation.anonymous or has_body,
        errors.Forbidden: operation.policy is not None,
        errors.NotFound: not operation.anonymous,
        errors.NotAcceptable: True,
        errors.Conflict: operation.function in _CONFLICTING,
        errors.BodyTooLarge: has_body,
        errors.UnsupportedMediaType: has_body and bool(operation.media_types),
        errors.TooMany: not operation.anonymous,
        errors.ServiceUnavailable: True,
    }
    return [error for error, can_occur in possible.items() if can_occur]


def _frame(paths: dict[str, dict[str, Any]]) -> Document:
    return {
        'openapi': '3.1.0',
        'info': {
            'title': 'OpenStack Messaging (Zaqar)',
            'version': '2',
            'description': 'What this server offers over HTTP. The same operations are actions '
            'of the WebSocket at `/v2/ws`, described by `/v2/asyncapi.json`.',
            'license': {'name': 'Apache-2.0', 'identifier': 'Apache-2.0'},
        },
        'servers': [{'url': '/'}],
        'security': [{}, {'token': []}],
        'paths': paths,
        'components': {
            'securitySchemes': {
                'token': {
                    'type': 'apiKey',
                    'in': 'header',
                    'name': 'X-Auth-Token',
                    'description': 'A Keystone token, where the server asks Keystone.',
                }
            },
            'parameters': {
                'ClientID': _header('Client-ID', schemas.CLIENT_ID, schemas.CLIENT_ID_EXAMPLE),
                'ProjectID': _header(
                    'X-Project-ID', schemas.PROJECT_ID, schemas.PROJECT_ID_EXAMPLE
                ),
            },
        },
    }


def _header(name: str, schema: Schema, example: str) -> Document:
    return {'name': name, 'in': 'header', 'required': True, 'schema': schema, 'example': example}


def _body_types(operations: list[Operation]) -> Iterator[Any]:
    for operation in operations:
        for status in operation.success:
            body = body_type(operation, status)
            if body not in (None, type(None)):
                yield body


def _by_path(operations: list[Operation]) -> dict[str, list[_Offer]]:
    paths: dict[str, list[_Offer]] = {}
    for operation in operations:
        offers = paths.setdefault(operation.route.path, [])
        offers.extend(_Offer(method, operation) for method in operation.route.methods)
    return paths


def _describe(offers: list[_Offer], known: Schemas) -> Document:
    """One method of one path, which means one of several operations by its query."""
    first = offers[0]
    name = first.operation.name
    described: Document = {
        'operationId': name
        if first.method == first.operation.route.methods[0]
        else f'{name}_{first.method.lower()}',
        'tags': [first.operation.route.path.removeprefix('/v2').split('/')[1] or 'versions'],
        'summary': first.operation.summary,
        'description': '\n\n'.join(_describe_text(offer.operation) for offer in offers),
        'x-actions': [offer.operation.name for offer in offers],
        'parameters': _parameters(offers, known),
    }
    if first.has_body:
        described['requestBody'] = _request_body(first.operation, known)
    described['responses'] = _responses(offers, known)
    return described


def _describe_text(operation: Operation) -> str:
    rule = f'Policy rule: `{operation.policy}`.' if operation.policy else 'Open to everybody.'
    return f'{schemas.description_of(operation)}\n\n{rule}'


def _parameters(offers: list[_Offer], known: Schemas) -> list[Document]:
    """The parameters of a method; those of only some of its operations are optional."""
    operation = offers[0].operation
    members = known.members(operation.request)
    found = [
        _parameter('path', part[1:-1], members[part[1:-1]], required=True)
        for part in operation.route.path.split('/')
        if part.startswith('{')
    ]
    for offer in offers:
        found.extend(_query(offer.operation, known, alone=len(offers) == 1))
    if not operation.anonymous:
        found.extend({'$ref': f'#/components/parameters/{name}'} for name in _IDENTIFYING)
    return found


def _query(operation: Operation, known: Schemas, *, alone: bool) -> Iterator[Document]:
    members = known.members(operation.request)
    for parameter in operation.route.query:
        member = members[operation.member(parameter)]
        yield _parameter('query', parameter, member, required=alone and member.required)
    if operation.filters is not None:
        yield {
            'name': operation.filters,
            'in': 'query',
            'style': 'form',
            'explode': True,
            'description': 'Any other parameter: a key of the metadata, and the value it must '
            'have.',
            'schema': {'type': 'object', 'additionalProperties': {'type': ['string', 'integer']}},
        }


def _parameter(place: str, name: str, member: Member, *, required: bool) -> Document:
    schema = schemas.without_null(member.schema)
    described: Document = {'name': name, 'in': place, 'required': required, 'schema': schema}
    if schema.get('type') == 'array':
        described |= {'style': 'form', 'explode': False}
    if place == 'path':
        described['example'] = schemas.EXAMPLES[member.name]
    return described


def _request_body(operation: Operation, known: Schemas) -> Document:
    schema, example, required = _payload(operation, known)
    media_types = operation.media_types or (JSON,)
    return {
        'required': required,
        'content': {name: {'schema': schema, 'example': example} for name in media_types},
    }


def _payload(operation: Operation, known: Schemas) -> tuple[Schema, Any, bool]:
    """The schema of a request's body, an example, and whether there must be a body."""
    members = known.members(operation.request)
    if operation.payload is not None:
        member = members[operation.payload]
        example = schemas.EXAMPLES[member.name]
        return schemas.without_null(member.schema), example, member.required
    elsewhere = {operation.member(parameter) for parameter in operation.route.query}
    inside = [
        member
        for name, member in members.items()
        if name not in elsewhere and f'{{{name}}}' not in operation.route.path
    ]
    schema = schemas.object_of(inside, closed=schemas.is_closed(operation.request))
    required = (
        operation.needs_body
        or 'PATCH' in operation.route.methods
        or any(member.required for member in inside)
    )
    return schema, schemas.example_of(inside), required


def _responses(offers: list[_Offer], known: Schemas) -> Document:
    answers: dict[str, list[Document]] = {}
    for offer in offers:
        for status, answer in _answers(offer, known):
            known_answers = answers.setdefault(str(status), [])
            if answer not in known_answers:
                known_answers.append(answer)
    return {status: _merged(answers[status]) for status in sorted(answers)}


def _answers(offer: _Offer, known: Schemas) -> Iterator[tuple[int, Document]]:
    operation = offer.operation
    for status in operation.success:
        yield status, _success(offer, status, known)
    if not operation.anonymous:
        yield _UNAUTHORIZED, {'description': 'Keystone does not accept the token.'}
    for error in failures(operation, has_body=offer.has_body):
        yield error.status, _failure(offer, error, known)


def _success(offer: _Offer, status: int, known: Schemas) -> Document:
    operation = offer.operation
    shape = shapes.SHAPES.get(operation.function, shapes.as_is)
    body = body_type(operation, status)
    described: Document = {'description': operation.summary}
    if shape in shapes.LOCATING:
        described['headers'] = {
            'Location': {
                'description': 'Where what was made or changed is, if it was. A post of many '
                'messages has none: `resources` names them.',
                'schema': {'type': 'string'},
            }
        }
    if body not in (None, type(None)) and offer.method != 'HEAD':
        media_type = shapes.MEDIA_TYPES.get(shape, JSON)
        described['content'] = {media_type: {'schema': known.of(body)}}
    return described


def _failure(offer: _Offer, error: type[errors.APIError], known: Schemas) -> Document:
    described: Document = {'description': error.title}
    if offer.method != 'HEAD':
        described['content'] = {JSON: {'schema': known.of(ErrorDocument)}}
    return described


def _merged(answers: list[Document]) -> Document:
    """One answer that allows what each of `answers` does."""
    if len(answers) == 1:
        return answers[0]
    choices = [answer['content'][JSON]['schema'] for answer in answers]
    return {**answers[0], 'content': {JSON: {'schema': {'anyOf': choices}}}}
