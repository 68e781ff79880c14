"""What lets upstream's tests run here unmodified: configuration files and clean-up.

Tests that cannot pass are named in `impossible.txt`, each with its reason. They are run all the
same: one that starts to pass fails the run, so that the list can only shrink.
"""

from __future__ import annotations

import configparser
import os
import pathlib
from collections.abc import Iterator

import pytest

HERE = pathlib.Path(__file__).parent

# Upstream reads these when its test modules are imported.
os.environ['ZAQAR_TEST_MONGODB'] = '1'
os.environ['ZAQAR_TESTS_CONFIGS_DIR'] = str(HERE)

from zaqar.tests.unit.transport.wsgi import base as wsgi_base  # noqa: E402
from zaqar.tests.unit.transport.wsgi.v2_0 import (  # noqa: E402
    test_claims,
    test_queue_lifecycle,
    test_topic_lifecycle,
)

from zaqar_gevent import conf as configuration  # noqa: E402
from zaqar_gevent.storage import sqlite  # noqa: E402

# Options that upstream's files of these names set beside the store.
SPECIAL: dict[str, dict[str, dict[str, str]]] = {
    'wsgi_mongodb.conf': {'signed_url': {'secret_key': 'test'}},
    'wsgi_mongodb_default_limits.conf': {},
    'wsgi_mongodb_validation.conf': {
        'transport': {'max_queue_metadata': '64', 'max_messages_post_size': '256'}
    },
    'wsgi_mongodb_pooled.conf': {
        'DEFAULT': {'pooling': 'True'},
        'pooling:catalog': {'enable_virtual_pool': 'True'},
    },
}
KEYSTONE = {
    'DEFAULT': {'auth_strategy': 'keystone'},
    'keystone_authtoken': {'www_authenticate_uri': 'http://localhost/identity'},
}
FAULTY = {
    'drivers': {'transport': 'gevent', 'message_store': 'faulty', 'management_store': 'faulty'}
}


def _write(directory: pathlib.Path, name: str, sections: dict[str, dict[str, str]]) -> None:
    parser = configparser.ConfigParser()
    for section, options in sections.items():
        if section != 'DEFAULT':
            parser.add_section(section)
        parser[section].update(options)
    with (directory / name).open('w') as file:
        parser.write(file)


def _store(directory: pathlib.Path) -> dict[str, dict[str, str]]:
    uri = f'sqlite:///{directory}/zaqar.sqlite'
    return {
        'drivers': {
            'transport': 'gevent',
            'message_store': 'sqlite',
            'management_store': 'sqlite',
        },
        'drivers:message_store:sqlite': {'uri': uri},
        'drivers:management_store:sqlite': {'uri': uri},
    }


@pytest.fixture(autouse=True)
def _embedded_store(
    request: pytest.FixtureRequest, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Give the test the configuration files it asks for, on a store of its own."""
    configuration.accept_gevent_transport()
    for name, options in SPECIAL.items():
        _write(tmp_path, name, {**_store(tmp_path), **options})
    _write(tmp_path, 'wsgi_faulty.conf', FAULTY)
    _write(tmp_path, 'keystone_auth.conf', {**_store(tmp_path), **KEYSTONE})
    (tmp_path / 'policy.yaml').write_text('"default": "rule:admin_or_owner"\n')
    monkeypatch.setenv('ZAQAR_TESTS_CONFIGS_DIR', str(tmp_path))
    monkeypatch.setenv('ZAQAR_TEST_MONGODB_URL', _pool_uri(request, tmp_path))
    # These drop MongoDB databases; here every test has a file that goes with its directory.
    for case in (
        test_claims.TestClaimsMongoDB,
        test_queue_lifecycle.TestQueueLifecycleMongoDB,
        test_topic_lifecycle.TestTopicLifecycleMongoDB,
    ):
        monkeypatch.setattr(case, 'tearDown', wsgi_base.V2Base.tearDown)
    # Upstream closes the control store before the pools, whose list is kept in it.
    monkeypatch.setattr(sqlite.ControlDriver, 'close', lambda self: None)
    yield


def _pool_uri(request: pytest.FixtureRequest, directory: pathlib.Path) -> str:
    """Where pools are: most tests add a name to it, some take it as it is."""
    as_it_is = ('TestPoolsMongoDB', 'TestSubscriptionsMongoDB')
    name = 'pool' if request.node.cls.__name__ in as_it_is else ''
    return f'sqlite:///{directory}/{name}'.rstrip('/')


def _impossible() -> dict[str, str]:
    """Test (`Class::test`) to reason, from `impossible.txt`."""
    listed = {}
    for line in (HERE / 'impossible.txt').read_text().splitlines():
        if line and not line.startswith('#'):
            name, _, reason = line.partition(' ')
            listed[name] = reason.strip()
    return listed


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    impossible = _impossible()
    for item in items:
        if HERE in item.path.parents:
            reason = impossible.get('::'.join(item.nodeid.split('::')[1:]))
            if reason is not None:
                item.add_marker(pytest.mark.xfail(strict=True, reason=reason))
