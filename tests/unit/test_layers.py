"""Who may import whom, and that no operation is missing from a transport."""

from __future__ import annotations

import ast
import pathlib

import falcon
import pytest

import zaqar_gevent
from zaqar_gevent.api import REGISTRY
from zaqar_gevent.rest import shapes

PACKAGE = pathlib.Path(zaqar_gevent.__file__).parent
MODULES = sorted(PACKAGE.rglob('*.py'))

# What the modules under each path must not import. Imports point downwards only:
# cmd, wsgi -> server -> rest, websocket -> api -> the storage interface.
FORBIDDEN = {
    'api': (
        *('zaqar_gevent.rest', 'zaqar_gevent.websocket', 'zaqar_gevent.server', 'gevent'),
        *('zaqar_gevent.push', 'zaqar_gevent.webhooks'),
        *(
            'zaqar_gevent.cmd',
            'zaqar_gevent.program',
            'zaqar_gevent.wsgi',
            'zaqar_gevent.storage',
            'falcon',
            'websockets',
        ),
    ),
    'rest': (
        *(
            'zaqar_gevent.websocket',
            'zaqar_gevent.server',
            'zaqar_gevent.cmd',
            'zaqar_gevent.program',
        ),
        *('zaqar_gevent.wsgi', 'zaqar_gevent.storage', 'gevent', 'websockets'),
        'zaqar_gevent.webhooks',
    ),
    'websocket': (
        *(
            'zaqar_gevent.rest',
            'zaqar_gevent.server',
            'zaqar_gevent.cmd',
            'zaqar_gevent.program',
            'zaqar_gevent.wsgi',
        ),
        *('zaqar_gevent.storage', 'falcon', 'zaqar_gevent.push', 'zaqar_gevent.webhooks'),
    ),
    'push': (
        *(
            'zaqar_gevent.rest',
            'zaqar_gevent.server',
            'zaqar_gevent.cmd',
            'zaqar_gevent.program',
            'zaqar_gevent.wsgi',
        ),
        *('zaqar_gevent.storage', 'zaqar_gevent.websocket', 'zaqar_gevent.http', 'falcon'),
        'zaqar_gevent.webhooks',
    ),
    'webhooks': (
        *('zaqar_gevent.rest', 'zaqar_gevent.websocket', 'zaqar_gevent.server', 'falcon'),
        *(
            'zaqar_gevent.cmd',
            'zaqar_gevent.program',
            'zaqar_gevent.wsgi',
            'zaqar_gevent.storage',
            'zaqar_gevent.push',
        ),
        *('zaqar_gevent.http', 'requests'),
    ),
    'webhooks/scheduler.py': ('gevent', 'socket', 'time'),
    'webhooks/backlog.py': ('gevent', 'socket', 'time'),
    'webhooks/shares.py': ('gevent', 'socket', 'time'),
    'console': (
        *('zaqar_gevent.api', 'zaqar_gevent.rest', 'zaqar_gevent.websocket', 'zaqar_gevent.push'),
        *(
            'zaqar_gevent.storage',
            'zaqar_gevent.server',
            'zaqar_gevent.cmd',
            'zaqar_gevent.program',
            'zaqar_gevent.wsgi',
        ),
        *('zaqar_gevent.http', 'zaqar_gevent.conf', 'zaqar_gevent.client', 'falcon', 'gevent'),
        *('zaqar', 'socket', 'pathlib', 'os'),
    ),
    'websocket/session.py': ('gevent', 'socket'),
    'websocket/codecs.py': ('gevent', 'socket'),
    'websocket/envelope.py': ('gevent', 'socket'),
    'websocket/compact.py': ('gevent', 'socket'),
    'websocket/handshake.py': ('gevent', 'socket'),
    'websocket/engines': ('gevent', 'socket', 'zaqar_gevent.api'),
    'http': (
        *('zaqar_gevent.api', 'zaqar_gevent.rest', 'zaqar_gevent.server', 'zaqar_gevent.conf'),
        'zaqar_gevent.gunicorn',
    ),
    'http/head.py': ('gevent', 'socket'),
    'http/answer.py': ('gevent', 'socket'),
    'sockets': (
        *('zaqar_gevent.api', 'zaqar_gevent.http', 'zaqar_gevent.rest', 'zaqar_gevent.websocket'),
        *('zaqar_gevent.push', 'zaqar_gevent.server', 'zaqar_gevent.storage'),
    ),
    'gunicorn': ('zaqar_gevent.server', 'zaqar_gevent.rest', 'zaqar_gevent.api'),
    'options.py': ('gevent', 'zaqar_gevent.api', 'zaqar_gevent.rest', 'zaqar_gevent.server'),
    'storage': (
        *('zaqar_gevent.api', 'zaqar_gevent.rest', 'zaqar_gevent.websocket', 'falcon'),
        *(
            'zaqar_gevent.server',
            'zaqar_gevent.cmd',
            'zaqar_gevent.program',
            'zaqar_gevent.wsgi',
            'zaqar_gevent.conf',
        ),
    ),
    'storage/core': (
        *('zaqar_gevent.storage.sqlite', 'zaqar_gevent.storage.redis', 'sqlite3', 'hiredis'),
        *('zaqar_gevent.storage.drivers', 'zaqar_gevent.storage.own_drivers'),
    ),
    'storage/sqlite': ('zaqar_gevent.storage.redis', 'zaqar_gevent.storage.drivers'),
    'storage/redis': ('zaqar_gevent.storage.sqlite', 'zaqar_gevent.storage.drivers'),
    'storage/postgresql': (
        *('zaqar_gevent.storage.redis', 'zaqar_gevent.storage.sqlite'),
        'zaqar_gevent.storage.drivers',
    ),
    'storage/errors.py': ('zaqar_gevent', 'gevent'),
    'storage/features.py': ('zaqar_gevent', 'zaqar', 'gevent'),
    'encryption': (
        *('zaqar_gevent.api', 'zaqar_gevent.rest', 'zaqar_gevent.websocket', 'zaqar_gevent.push'),
        *('zaqar_gevent.storage', 'zaqar_gevent.server', 'zaqar_gevent.conf', 'falcon', 'gevent'),
        'zaqar',
    ),
    'client': (
        *('gevent', 'falcon', 'requests', 'zaqar', 'msgspec', 'httpx'),
        *('websockets.asyncio', 'websockets.sync', 'websockets.legacy'),
    ),
    'client/sync': ('asyncio', 'zaqar_gevent.client.aio', 'httpcore'),
    'client/aio': ('threading', 'zaqar_gevent.client.sync', 'urllib3'),
    'static_files.py': ('zaqar_gevent', 'gevent', 'os', 'pathlib'),
    'metrics.py': ('zaqar_gevent', 'gevent'),
    'access_log.py': (
        *('zaqar_gevent.api', 'zaqar_gevent.rest', 'zaqar_gevent.websocket', 'zaqar_gevent.server'),
        *(
            'zaqar_gevent.storage',
            'zaqar_gevent.cmd',
            'zaqar_gevent.program',
            'zaqar_gevent.wsgi',
            'zaqar_gevent.metrics',
        ),
    ),
    'terminal': (
        *('zaqar_gevent.api', 'zaqar_gevent.rest', 'zaqar_gevent.websocket', 'zaqar_gevent.push'),
        *(
            'zaqar_gevent.storage',
            'zaqar_gevent.server',
            'zaqar_gevent.cmd',
            'zaqar_gevent.program',
            'zaqar_gevent.wsgi',
        ),
        *('zaqar_gevent.http', 'zaqar_gevent.conf', 'falcon', 'gevent', 'zaqar', 'oslo_config'),
    ),
    'check': (
        *('zaqar_gevent.api', 'zaqar_gevent.rest', 'zaqar_gevent.websocket', 'zaqar_gevent.push'),
        *(
            'zaqar_gevent.server',
            'zaqar_gevent.cmd',
            'zaqar_gevent.program',
            'zaqar_gevent.wsgi',
            'zaqar_gevent.client',
        ),
        *('zaqar_gevent.terminal', 'zaqar_gevent.http', 'falcon'),
    ),
    'copying': (
        *(
            'zaqar_gevent.rest',
            'zaqar_gevent.websocket',
            'zaqar_gevent.server',
            'zaqar_gevent.cmd',
            'zaqar_gevent.program',
        ),
        *('zaqar_gevent.wsgi', 'zaqar_gevent.client', 'zaqar_gevent.terminal', 'falcon', 'gevent'),
    ),
    'conf.py': ('zaqar_gevent.server', 'zaqar_gevent.api', 'zaqar_gevent.rest'),
    'server.py': ('zaqar_gevent.cmd', 'zaqar_gevent.program', 'zaqar_gevent.wsgi'),
    '': ('zaqar.transport.wsgi', 'zaqar.transport.websocket', 'zaqar.api', 'zaqar.bootstrap'),
}

# What every layer may know of the stores.
INTERFACE = tuple(f'zaqar_gevent.storage.{name}' for name in ('errors', 'features', 'interface'))


def imports_of(module: pathlib.Path) -> set[str]:
    """The dotted names that a module imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{module}: a relative import'
            found.add(str(node.module))
            found.update(f'{node.module}.{alias.name}' for alias in node.names)
    return found


@pytest.mark.parametrize('place', FORBIDDEN, ids=lambda place: place or 'everywhere')
def test_imports_point_downwards_only(place: str) -> None:
    checked = 0
    for module in MODULES:
        relative = module.relative_to(PACKAGE).as_posix()
        if place in ('', relative) or relative.startswith(f'{place}/'):
            checked += 1
            for name in imports_of(module):
                if name.startswith(INTERFACE):
                    continue
                for forbidden in FORBIDDEN[place]:
                    assert name != forbidden, f'{relative} imports {name}'
                    assert not name.startswith(f'{forbidden}.'), f'{relative} imports {name}'
    assert checked


def test_the_client_imports_nothing_else_of_the_package() -> None:
    taken = {
        name
        for module in (PACKAGE / 'client').rglob('*.py')
        for name in imports_of(module)
        if name.split('.')[0] == 'zaqar_gevent' and not name.startswith('zaqar_gevent.client')
    }
    assert taken == set()


def test_only_the_command_patches_the_standard_library() -> None:
    patching = [module.name for module in MODULES if 'patch_all' in module.read_text()]
    assert patching == ['program.py']


def test_only_the_metrics_know_prometheus() -> None:
    knowing = {
        module.relative_to(PACKAGE).as_posix()
        for module in MODULES
        if any(name.split('.')[0] == 'prometheus_client' for name in imports_of(module))
    }
    assert knowing == {'metrics.py'}


def test_the_store_touches_no_metric_in_its_thread() -> None:
    taken = {
        name
        for module in (PACKAGE / 'storage').rglob('*.py')
        for name in imports_of(module)
        if name.startswith('zaqar_gevent.metrics')
    }
    assert taken == {'zaqar_gevent.metrics', 'zaqar_gevent.metrics.COMMIT_SIZES'}


def test_every_operation_has_a_route_of_its_own() -> None:
    routes = [
        (method, operation.route.path, frozenset(operation.route.query))
        for operation in REGISTRY
        for method in operation.route.methods
    ]
    assert len(routes) == len(set(routes))


def test_every_shape_belongs_to_an_operation() -> None:
    assert set(shapes.SHAPES) <= {operation.function for operation in REGISTRY}


def test_every_path_variable_is_an_argument() -> None:
    for operation in REGISTRY:
        members = operation.request.__struct_encode_fields__
        for part in operation.route.path.split('/'):
            if part.startswith('{'):
                assert part[1:-1] in members, operation.name
        for parameter in operation.route.query:
            assert operation.member(parameter) in members, operation.name


def test_every_operation_says_what_it_does_and_has_a_policy_or_needs_none() -> None:
    for operation in REGISTRY:
        assert operation.summary.endswith(('.', ')', ';')) or ';' in operation.summary
        free = operation.anonymous or operation.name == 'get_home_doc'
        assert (operation.policy is None) == free


def test_falcon_has_a_responder_for_every_operation() -> None:
    from zaqar_gevent.rest.arguments import BodyLimits
    from zaqar_gevent.rest.resource import Resource

    for operation in REGISTRY:
        resource = Resource(None, [operation], BodyLimits(0, 0))  # type: ignore[arg-type]
        for method in operation.route.methods:
            assert method in falcon.HTTP_METHODS
            assert callable(getattr(resource, f'on_{method.lower()}'))
