"""Requests for every operation in which one value is hostile, made from the registry.

`ARGUMENTS` has a good value for every member of every request; a request is those of its operation,
with one value, however deep, replaced by each of `VALUES`.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from zaqar_gevent.api import REGISTRY
from zaqar_gevent.api.operation import CONNECTION, Operation

OPERATIONS = {operation.name: operation for operation in (*REGISTRY, *CONNECTION)}

RETRIES = {
    'retries_with_no_delay': 0,
    'minimum_delay_retries': 0,
    'minimum_delay': 1,
    'maximum_delay': 1,
    'maximum_delay_retries': 0,
    'retry_backoff_function': 'linear',
    'ignore_subscription_override': False,
}
ARGUMENTS: dict[str, Any] = {
    'capabilities': {'FIFO': True},
    'changes': [{'op': 'add', 'path': '/metadata/team', 'value': {'a': 1}}],
    'claim_id': '51db7067821e727dc24df754',
    'claim_ids': ['51db7067821e727dc24df754'],
    'confirmed': True,
    'consumer_id': 'a8249c6505c3f74a',
    'credit': 1,
    'delay': 0,
    'detailed': True,
    'echo': True,
    'entries': [
        {
            'message_id': '50b68a50d6f5b8c8a7c62b01',
            'claim_id': '51db7067821e727dc24df754',
            'delay': 0,
            'reason': 'broken',
            'ttl': 60,
            'grace': 60,
        }
    ],
    'expires': '2100-01-01T00:00:00',
    'flavor': 'fast',
    'flavor_name': 'fast',
    'grace': 60,
    'include_claimed': True,
    'include_delayed': True,
    'limit': 2,
    'marker': '1',
    'message_id': '50b68a50d6f5b8c8a7c62b01',
    'message_ids': ['50b68a50d6f5b8c8a7c62b01'],
    'messages': [{'body': {'sku': 42}, 'ttl': 300, 'delay': 0}],
    'metadata': {
        'team': 'sales',
        '_default_message_ttl': 3600,
        '_default_message_delay': 0,
        '_max_messages_post_size': 1000,
        '_dead_letter_queue': 'dead',
        '_dead_letter_queue_messages_ttl': 3600,
        '_max_claim_count': 2,
        '_enable_encrypt_messages': False,
        '_flavor': 'fast',
        '_retry_policy': RETRIES,
    },
    'methods': ['GET'],
    'name': 'ord',
    'options': {'post_data': '{}', 'post_headers': {'X-A': 'b'}, '_retry_policy': RETRIES},
    'paths': ['messages'],
    'pool_list': ['east'],
    'pool_name': 'east',
    'pop': 2,
    'post_id': '0193b1a2-6c1e-7c55-9d0e-6f2f3c1f7a10',
    'queue_name': 'orders',
    'rate': 10.0,
    'reason': 'broken',
    'redrive_id': '0000000000000007',
    'resource_types': ['messages'],
    'subscriber': 'http://127.0.0.1:1/orders',
    'subscription_id': '57692aa63990b48c644bb7e5',
    'target': 'prices',
    'topic_name': 'prices',
    'ttl': 300,
    'uri': 'sqlite:///{directory}/pool.sqlite',
    'wait': 0,
    'weight': 100,
    'with_count': True,
}

SURROGATE = '\ud800'
TEXTS: list[Any] = [
    *('', ' ', '\t', '\n', ' orders', 'orders ', 'orders\n', '\xa0orders', 'a b', '\ufeffa'),
    *('\0', 'a\0b', SURROGATE, f'a{SURROGATE}b', '\udfff\ud800', '\uffff', '\U0001f418', '\x7f'),
    *('%00', '%', '%ff', '..', '../../etc', '/', 'a/b', '\\', '"', "'", '*', '?', '[a', '{a}', '('),
    *('null', '-1', '0', '1e9', 'nan', '9' * 30, '-' + '9' * 30, 'True', '$', '$where', 'a.b', ':'),
    *('x' * 65, 'x' * 300, 'x' * 20_000, '\U0001f418' * 300),
    *('http://', 'http:', '://', 'http:///', 'http://[', 'http://[::1', 'http://a:x/', 'https://'),
    *(' http://127.0.0.1:1/', 'http://127.0.0.1:1/ ', '\thttp://127.0.0.1/', '\nhttp://127.0.0.1/'),
    *(
        'http://127.0.0.1:99999/',
        'http://127.0.0.1/\0',
        f'http://127.0.0.1/{SURROGATE}',
        'HTTP://A',
        'ftp://127.0.0.1/',
    ),
    *(
        'trust+ftp://a',
        'trust+mailto:a',
        'trust+',
        'gopher://127.0.0.1/',
        'mailto:',
        'mailto',
        'javascript:alert(1)',
    ),
    *('trust+http://127.0.0.1:1/', 'trust+https://127.0.0.1:1/', 'TRUST+HTTP://127.0.0.1:1/'),
    *('file:///etc/passwd', 'sqlite:', 'sqlite://', 'sqlite:///', 'sqlite:////nowhere/at/all'),
    *('redis:', 'redis://', 'redis://[', 'redis://a:x', 'mongodb:', 'mongodb://', 'faulty://'),
    *('swift://', 'mysql://', 'sqlalchemy://', 'nonsense://a'),
]
NUMBERS: list[Any] = [
    *(0, -1, 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, -(2**63), 2**63, 2**64, 10**30, -(10**30)),
    *(0.5, -0.0, 1e300, -1e300, 5e-324, float('nan'), float('inf'), float('-inf')),
    *(60, 43_200, 43_201, 1_209_600, 1_209_601, 20, 21),
]
DEEP: Any = 1
for _ in range(100):
    DEEP = [DEEP]
OTHERS: list[Any] = [
    *(None, True, False, [], {}, [None], [[]], [{}], [1], ['a'], ['a'] * 1500, [''], ['\0']),
    *([SURROGATE], {'a': None}, {'': 1}, {'\0': 1}, {SURROGATE: 1}, {'a\0b': 'c'}, {'$a': 1}),
    *({'a.b': 1}, {'a': {'\0': 1}}, {'x' * 1000: 1}, {f'k{n}': n for n in range(1500)}, DEEP),
    *({'a': SURROGATE}, {'a': '\0'}, {'_flavor': 'none'}, {'_retry_policy': None}),
]
VALUES: list[Any] = [*TEXTS, *NUMBERS, *OTHERS]


class Hostile(NamedTuple):
    """A request: its operation, its arguments, and where which hostile value is."""

    operation: Operation
    arguments: dict[str, Any]
    place: str
    value: Any

    def __str__(self) -> str:
        return f'{self.operation.name} {self.place} = {ascii(self.value)[:80]}'


def members_of(operation: Operation) -> list[str]:
    """The names of the arguments that clients can give."""
    names: tuple[str, ...] = operation.request.__struct_encode_fields__
    hidden = {'queue_name'} if operation.kind.value == 'topic' else set()
    return [name for name in names if name not in hidden]


def required_of(operation: Operation) -> set[str]:
    fields = msgspec.structs.fields(operation.request)
    return {field.encode_name for field in fields if field.required}


def requests_for(operation: Operation, known: dict[str, Any]) -> Iterator[Hostile]:
    """All of one operation; `known` are arguments that mean something on the server."""
    good = {name: known.get(name, ARGUMENTS[name]) for name in members_of(operation)}
    required = required_of(operation)
    for name in good:
        # Alone, since one that is refused for another one says nothing.
        kept = {other: good[other] for other in good if other in required or other == name}
        for path in _places(kept[name], (name,)):
            for value in VALUES:
                arguments = copy.deepcopy(kept)
                _replace(arguments, path, value)
                place = '.'.join(map(str, path))
                yield Hostile(operation, arguments, place, value)
        if isinstance(kept[name], dict):
            for key in itertools.chain(TEXTS):
                arguments = {**kept, name: {**kept[name], key: 1}}
                yield Hostile(operation, arguments, f'{name}.KEY', key)


def _places(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict):
        for key, member in value.items():
            yield from _places(member, (*path, key))
    elif isinstance(value, list):
        for index, member in enumerate(value):
            yield from _places(member, (*path, index))


def _replace(arguments: Any, path: tuple[Any, ...], value: Any) -> None:
    for key in path[:-1]:
        arguments = arguments[key]
    arguments[path[-1]] = value
