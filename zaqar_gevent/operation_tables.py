"""The operation tables of the clients, written from the operations' declarations.

::

    python -m zaqar_gevent.operation_tables

writes `client/operations.py`, `client/js/src/operations.js`, and the copy of the latter in
`client/js/zaqar.js`; `client/filters.py`, the copy of a module that server and client share; and
the settings of queues, `client/queue_settings.py` and `client/js/src/queue_settings.js`.
"""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any

from zaqar_gevent.api import CONNECTION, REGISTRY
from zaqar_gevent.api.operation import Operation
from zaqar_gevent.api.settings import SETTINGS, Setting
from zaqar_gevent.websocket import asyncapi

_CLIENT = pathlib.Path(__file__).with_name('client')
PYTHON = _CLIENT / 'operations.py'
JAVASCRIPT = _CLIENT / 'js' / 'src' / 'operations.js'
# Built from the modules by `tox -e genclient`, which copies them as they are.
BUILT_JAVASCRIPT = _CLIENT / 'js' / 'zaqar.js'

# What both need, and neither may import from the other.
FILTERS = _CLIENT / 'filters.py'
_FILTERS_SOURCE = pathlib.Path(__file__).with_name('filters.py')
_FILTERS_HEAD = """\
# Written by `tox -e genoperations` from zaqar_gevent/filters.py: change that one.
"""

PYTHON_SETTINGS = _CLIENT / 'queue_settings.py'
JAVASCRIPT_SETTINGS = _CLIENT / 'js' / 'src' / 'queue_settings.js'

_COMMENT = 'Written by `tox -e genoperations` from the declarations in zaqar_gevent/api.'

_PYTHON_HEAD = f'''\
"""Every operation that a server may offer, by its WebSocket action.

{_COMMENT}
"""

from __future__ import annotations

from zaqar_gevent.client.operation import Operation, Repeat

OPERATIONS: dict[str, Operation] = {{
    operation.name: operation
    for operation in (
'''

_JAVASCRIPT_HEAD = f"""\
// Every operation that a server may offer, by its WebSocket action.
//
// {_COMMENT}
//
// method, path: its route in REST, null where it has none.
// query: from the names of query parameters to those of arguments.
// payload: the argument that is the whole body.
// filters: the argument whose members are query parameters.
// mediaType: of the body.
// optionalBody: whether no body means something else than an empty one.
// repeat: when a request may be repeated safely, null for never. `given` and `absent` name an
// argument that must or must not be there; `changes` lists the operations of a JSON patch that
// each change must be one of.
"""


_PYTHON_SETTINGS_HEAD = f'''\
"""The settings of queues and topics, by the names that `configure` takes.

{_COMMENT}
"""

# fmt: off
# ruff: noqa: E501

from __future__ import annotations

from typing import NamedTuple


class Setting(NamedTuple):
    """A setting of a queue.

    name: for users. key: in the metadata. form, placeholder: how the terminal reads its value.
    told: what it is for, what is allowed, and its default. unit: as it is shown beside values.
    for_topics: whether topics have it.
    """

    name: str
    key: str
    form: str
    placeholder: str
    told: str
    unit: str
    for_topics: bool


SETTINGS = (
'''

_PYTHON_SETTING = """\
    Setting(
        name={0},
        key={1},
        form={2},
        placeholder={3},
        told={4},
        unit={5!r},
        for_topics={6},
    ),
"""

_JAVASCRIPT_SETTINGS_HEAD = f"""\
// The settings of queues and topics, by the names that `configure` takes.
//
// {_COMMENT}

"""

_JAVASCRIPT_END = '\n};\n'


def tables() -> dict[pathlib.Path, str]:
    """The text of each generated file."""
    table = _javascript()
    built = BUILT_JAVASCRIPT.read_text(encoding='utf-8')
    start = built.index(_JAVASCRIPT_HEAD)
    end = built.index(_JAVASCRIPT_END, start) + len(_JAVASCRIPT_END)
    copy = table.replace('export const', 'const', 1)
    return {
        FILTERS: _FILTERS_HEAD + _FILTERS_SOURCE.read_text(encoding='utf-8'),
        PYTHON_SETTINGS: _python_settings(),
        JAVASCRIPT_SETTINGS: _javascript_settings(),
        PYTHON: _python(),
        JAVASCRIPT: table,
        BUILT_JAVASCRIPT: built[:start] + copy + built[end:],
    }


def _python_settings() -> str:
    rows = (_PYTHON_SETTING.format(*_told(one), one.unit, one.for_topics) for one in SETTINGS)
    return _PYTHON_SETTINGS_HEAD + ''.join(rows) + ')\n'


def _told(setting: Setting) -> tuple[str, ...]:
    # The page of the docs has links.
    allowed = f'; {setting.allowed}' if setting.allowed else ''
    allowed = re.sub(r'\[\w+\]\((.*?)\)', r'docs/\1', allowed)
    told = f'{setting.effect}{allowed} (default: {setting.default})'
    return tuple(
        json.dumps(text, ensure_ascii=False)
        for text in (setting.name, setting.key, setting.form, setting.placeholder, told)
    )


def _javascript_settings() -> str:
    rows = ''.join(
        f"  {camel(one.name)}: {{ key: '{one.key}', forTopics: {json.dumps(one.for_topics)} }},\n"
        for one in SETTINGS
    )
    return f'{_JAVASCRIPT_SETTINGS_HEAD}export const SETTINGS = {{\n{rows}}};\n'


def camel(name: str) -> str:
    """A name as JavaScript has it."""
    first, *others = name.split('_')
    return first + ''.join(map(str.capitalize, others))


def _described() -> Iterator[dict[str, Any]]:
    """The facts about each operation that a client needs, without those that are the default."""
    for operation in (*REGISTRY, *CONNECTION):
        repeat = operation.repeat
        when = {} if repeat is None else {'repeat': _given(repeat._asdict())}
        yield _given(_members(operation)) | when
    for name in asyncapi.SESSION_ACTIONS:
        # They concern the connection only: a second one does what the first did.
        yield {'name': name, 'repeat': {}}


def _members(operation: Operation) -> dict[str, Any]:
    route = operation.route
    return {
        'name': operation.name,
        'method': route.methods[0] if route.methods else None,
        'path': route.path or None,
        'query': {parameter: operation.member(parameter) for parameter in route.query},
        'payload': operation.payload,
        'filters': operation.filters,
        'media_type': operation.media_types[0] if operation.media_types else None,
        'optional_body': bool(operation.body_members) and not operation.needs_body,
    }


def _given(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value}


def _python() -> str:
    lines = [_PYTHON_HEAD.rstrip('\n')]
    for one in _described():
        lines.append('        Operation(')
        for name, value in one.items():
            lines += _argument(name, value)
        lines.append('        ),')
    return '\n'.join([*lines, '    )', '}', ''])


def _argument(name: str, value: Any) -> Iterator[str]:
    if name == 'repeat':
        conditions = [f'{key}={item!r}' for key, item in value.items()]
        yield f'            repeat=Repeat({", ".join(conditions)}),'
    elif isinstance(value, dict):
        yield f'            {name}={{'
        yield from (f'                {key!r}: {item!r},' for key, item in value.items())
        yield '            },'
    else:
        yield f'            {name}={value!r},'


def _javascript() -> str:
    names = {'media_type': 'mediaType', 'optional_body': 'optionalBody'}
    lines = [_JAVASCRIPT_HEAD + 'export const OPERATIONS = {']
    for one in _described():
        name = one.pop('name')
        given = {names.get(key, key): value for key, value in one.items()}
        members = {'method': None, 'path': None, 'repeat': None} | given
        lines.append(f'  {name}: {{')
        lines += [f'    {key}: {_literal(value)},' for key, value in members.items()]
        lines.append('  },')
    return '\n'.join([*lines, '};', ''])


def _literal(value: Any) -> str:
    if isinstance(value, dict):
        inside = ', '.join(f'{key}: {_literal(item)}' for key, item in value.items())
        return f'{{ {inside} }}' if inside else '{}'
    if isinstance(value, list | tuple):
        return f'[{", ".join(_literal(item) for item in value)}]'
    return f"'{value}'" if isinstance(value, str) else json.dumps(value)


def main() -> None:
    """Write the tables."""
    for path, text in tables().items():
        path.write_text(text, encoding='utf-8')


if __name__ == '__main__':
    main()
