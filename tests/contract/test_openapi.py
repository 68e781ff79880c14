"""A real server answers only what the OpenAPI document it serves says, whatever it is asked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.callers import new_identity
from tests.server_process import ServerProcess
from zaqar_gevent.api import REGISTRY
from zaqar_gevent.api.queues import PATCH_MEDIA_TYPE
from zaqar_gevent.rest.openapi import build_openapi

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
IDENTITY = new_identity()
ADMINISTRATOR = {**IDENTITY.headers(), 'X-Roles': 'admin'}
QUEUE = 'orders'
NAME = 'east'

schemathesis.serializer.alias(PATCH_MEDIA_TYPE, 'application/json')


@pytest.fixture(scope='session')
def described(server: ServerProcess) -> Any:
    """The document as the server serves it, with a queue for its examples to work on."""
    messages = f'{server.url}/v2/queues/{QUEUE}/messages'
    body = {'messages': [{'body': number} for number in range(20)]}
    posted = requests.post(messages, json=body, headers=IDENTITY.headers(), timeout=60)
    assert posted.status_code == 201
    return schemathesis.openapi.from_url(f'{server.url}/v2/openapi.json')


@pytest.fixture(scope='session')
def described_pools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The document of a server whose store is pooled, with a pool and a flavor."""
    state = tmp_path_factory.mktemp('pooled')
    config = '[DEFAULT]\nadmin_mode = True\npooling = True\n'
    pool = {'weight': 100, 'uri': f'sqlite:///{state}/pool.sqlite'}
    flavor = {'pool_list': [NAME]}
    with ServerProcess(state, config=config) as server:
        for path, body in ((f'pools/{NAME}', pool), (f'flavors/{NAME}', flavor)):
            url = f'{server.url}/v2/{path}'
            assert requests.put(url, json=body, headers=ADMINISTRATOR, timeout=60).ok
        yield schemathesis.openapi.from_url(f'{server.url}/v2/openapi.json')


def _routes_of_pools() -> list[tuple[str, str]]:
    """Path and method of what only a server with pools offers."""
    offered = REGISTRY.offered(admin=True, pooling=True).values()
    paths = build_openapi([operation for operation in offered if operation.pooling])['paths']
    return [(path, method) for path, item in paths.items() for method in item]


def _routes(*, with_parameters: bool = False) -> list[tuple[str, str]]:
    """Path and method of everything that a server offers its administrators."""
    offered = REGISTRY.offered(admin=True, pooling=False).values()
    return [
        (path, method)
        for path, item in build_openapi(offered)['paths'].items()
        for method in item
        if item[method]['parameters'] or not with_parameters
    ]


bounded = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize(('path', 'method'), _routes())
def test_anybody_is_answered_as_described(described: Any, path: str, method: str) -> None:
    @bounded
    @given(case=described[path][method].as_strategy())
    def ask(case: schemathesis.Case) -> None:
        case.call_and_validate(checks=CHECKS, timeout=60)

    ask()


@pytest.mark.parametrize(('path', 'method'), _routes())
def test_a_client_of_a_queue_is_answered_as_described(
    described: Any, path: str, method: str
) -> None:
    @bounded
    @given(case=described[path][method].as_strategy())
    def ask(case: schemathesis.Case) -> None:
        case.path_parameters.update(
            {name: QUEUE for name in ('queue_name', 'topic_name') if name in case.path_parameters}
        )
        case.call_and_validate(headers=ADMINISTRATOR, checks=CHECKS, timeout=60)

    ask()


@pytest.mark.parametrize(('path', 'method'), _routes(with_parameters=True))
def test_nonsense_is_answered_as_described(described: Any, path: str, method: str) -> None:
    strategy = described[path][method].as_strategy(
        generation_mode=schemathesis.GenerationMode.NEGATIVE
    )

    @bounded
    @given(case=strategy)
    def ask(case: schemathesis.Case) -> None:
        case.call_and_validate(headers=IDENTITY.headers(), checks=CHECKS, timeout=60)

    ask()


@pytest.mark.parametrize('named', [False, True], ids=['any', 'existing'])
@pytest.mark.parametrize(('path', 'method'), _routes_of_pools())
def test_an_administrator_of_pools_is_answered_as_described(
    described_pools: Any, path: str, method: str, named: bool
) -> None:
    @bounded
    @given(case=described_pools[path][method].as_strategy())
    def ask(case: schemathesis.Case) -> None:
        if named:
            case.path_parameters.update(dict.fromkeys(case.path_parameters, NAME))
        case.call_and_validate(headers=ADMINISTRATOR, checks=CHECKS, timeout=60)

    ask()
