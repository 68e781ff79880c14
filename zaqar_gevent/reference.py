"""The reference of all operations, in Markdown, from the registry.

::

    python -m zaqar_gevent.reference docs/reference.md
"""

from __future__ import annotations

import json
import pathlib
import sys
from collections.abc import Iterable, Iterator

from zaqar_gevent.api import CONNECTION, REGISTRY, errors, schemas
from zaqar_gevent.api.operation import Operation
from zaqar_gevent.api.schemas import Member, Schema, Schemas
from zaqar_gevent.rest import openapi

_INTRODUCTION = """\
# Reference

Every operation: the WebSocket action, its route in REST, its arguments, results and errors. Written
by `tox -e genreference`; a running server describes what it offers at `/v2/openapi.json` and
`/v2/asyncapi.json`.

Times are in seconds. The arguments are the members of the `body` of a WebSocket request; in REST
they are in the path, the query or the body, as said of each. The `ttl` of messages, claims and
subscriptions and the `grace` of claims are at least 60 seconds. Results are those of the WebSocket;
where REST has another body, it follows. Every error may also be 401 where Keystone is asked.
"""


def write_reference(operations: Iterable[Operation]) -> str:
    """The reference of `operations`, in their order."""
    offered = list(operations)
    results = [kind for op in offered for kind in schemas.results(op).values()]
    bodies = [openapi.body_type(op, status) for op in offered for status in op.success]
    known = Schemas([*(op.request for op in offered), *results, *(kind for kind in bodies if kind)])
    sections = [_section(operation, known) for operation in offered]
    members = [member for op in offered for member in known.members(op.request).values()]
    wanted = known.components_of(
        [
            *(known.of(kind) for kind in (*results, *bodies) if kind),
            *(member.schema for member in members),
        ]
    )
    types = [_type_section(name, schema) for name, schema in wanted.items()]
    return '\n'.join([_INTRODUCTION, *sections, '## Types\n', *types])


def _section(operation: Operation, known: Schemas) -> str:
    return '\n'.join(
        [
            f'## {operation.name}\n',
            f'{_route(operation)}\n',
            f'{schemas.description_of(operation)}\n',
            *_arguments(operation, known),
            *_results(operation, known),
            f'- Errors: {_errors(operation)}',
            f'- Policy rule: {_rule(operation)}\n',
        ]
    )


def _route(operation: Operation) -> str:
    if not operation.route.methods:
        return 'Over WebSocket only.'
    return f'`{"|".join(operation.route.methods)} {operation.route.template}`'


def _rule(operation: Operation) -> str:
    rule = f'`{operation.policy}`' if operation.policy else 'none'
    where = {'admin_mode': operation.admin, 'pooling': operation.pooling}
    needed = [f'`{option}`' for option, is_needed in where.items() if is_needed]
    return rule + (f'; offered with {" and ".join(needed)}' if needed else '')


def _arguments(operation: Operation, known: Schemas) -> Iterator[str]:
    members = known.members(operation.request)
    if not members:
        return
    yield '| argument | type | default | in REST |'
    yield '|---|---|---|---|'
    for member in members.values():
        kind = _kind(member.schema).replace('|', '\\|')
        yield f'| `{member.name}` | {kind} | {_default(member)} | {_place(operation, member)} |'
    yield ''


def _default(member: Member) -> str:
    if member.required:
        return 'required'
    default = member.schema.get('default')
    return '' if default is None else f'`{json.dumps(default)}`'


def _place(operation: Operation, member: Member) -> str:
    if not operation.route.methods:
        return '-'
    if f'{{{member.name}}}' in operation.route.path:
        return 'path'
    for parameter in operation.route.query:
        if operation.member(parameter) == member.name:
            return f'query, `{parameter}`'
    if member.name == operation.filters:
        return 'query, any other parameter'
    return 'the body' if member.name == operation.payload else 'body'


def _results(operation: Operation, known: Schemas) -> Iterator[str]:
    for status, kind in schemas.results(operation).items():
        result = _kind(known.of(kind))
        body = openapi.body_type(operation, status)
        if not operation.route.methods or body == kind:
            yield f'- {status}: {result}'
        elif body in (None, type(None)):
            yield f'- {status}: {result}; in REST no body'
        else:
            yield f'- {status}: {result}; in REST {_kind(known.of(body))}'


def _errors(operation: Operation) -> str:
    has_body = any(method in openapi.WITH_BODY for method in operation.route.methods)
    possible: list[type[errors.APIError]] = openapi.failures(operation, has_body=has_body)
    return ', '.join(f'{error.status} `{error.code}`' for error in possible)


def _type_section(name: str, schema: Schema) -> str:
    lines = [f'### {name}\n']
    if 'description' in schema:
        lines.append(f'{schema["description"]}\n')
    required = schema.get('required', ())
    for member, kind in schema.get('properties', {}).items():
        lines.append(f'- `{member}`: {_kind(kind)}{"" if member in required else ", optional"}')
    return '\n'.join([*lines, ''])


def _kind(schema: Schema) -> str:
    """A schema in a few words."""
    if '$ref' in schema:
        name = schema['$ref'].rsplit('/', 1)[-1]
        return f'[{name}](#{name.lower()})'
    if 'anyOf' in schema:
        return ' | '.join(_kind(choice) for choice in schema['anyOf'])
    if 'enum' in schema:
        return ' | '.join(f'`{json.dumps(value)}`' for value in schema['enum'])
    if schema.get('type') == 'array':
        return f'array of {_kind(schema.get("items", {}))}'
    return str(schema.get('type', 'any value')) + _range(schema)


def _range(schema: Schema) -> str:
    if 'minimum' in schema:
        return f' from {schema["minimum"]} to {schema["maximum"]}'
    if 'maxLength' in schema:
        return f' of {schema.get("minLength", 0)} to {schema["maxLength"]} characters'
    return ''


if __name__ == '__main__':
    pathlib.Path(sys.argv[1]).write_text(
        write_reference([*REGISTRY, *CONNECTION]), encoding='utf-8'
    )
