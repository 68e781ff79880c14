"""What lets upstream's tests run here unmodified: configuration files and clean-up.

Tests that cannot pass are named in `impossible.txt`, each with its reason.
"""

from __future__ import annotations

import configparser
import os
import pathlib

import pytest

HERE = pathlib.Path(__file__).parent

# Upstream reads these when its test modules are imported.
os.environ['ZAQAR_TEST_MONGODB'] = '1'
os.environ['ZAQAR_TESTS_CONFIGS_DIR'] = str(HERE)

from zaqar.bootstrap import Bootstrap  # noqa: E402
from zaqar.common import decorators  # noqa: E402
from zaqar.tests.unit.transport.wsgi import base as wsgi_base  # noqa: E402
from zaqar.tests.unit.transport.wsgi.v2_0 import (  # noqa: E402
    test_claims,
    test_queue_lifecycle,
    test_topic_lifecycle,
)

from tests.compat import impossible  # noqa: E402
from zaqar_gevent.server import Application, TransportDriver  # noqa: E402
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
# The requests of Falcon's test client are for a host of its own.
ANY_HOST = {'drivers:transport:gevent': {'allowed_hosts': '*'}}
FAULTY = {
    'drivers': {'message_store': 'faulty', 'management_store': 'faulty'},
    **ANY_HOST,
}


def _write(directory: pathlib.Path, name: str, sections: dict[str, dict[str, str]]) -> None:
    parser = configparser.ConfigParser()
    for section, options in sections.items():
        if section != 'DEFAULT':
            parser.add_section(section)
        parser[section].update(options)
    with (directory / name).open('w') as file:
        parser.write(file)


def choose_store(name: str, uri: str) -> dict[str, dict[str, str]]:
    """The options that make `name` the store for messages and for management."""
    return {
        'drivers': {'message_store': name, 'management_store': name},
        f'drivers:message_store:{name}': {'uri': uri},
        f'drivers:management_store:{name}': {'uri': uri},
        **ANY_HOST,
    }


@pytest.fixture
def store(tmp_path: pathlib.Path) -> dict[str, dict[str, str]]:
    """The options that choose the store."""
    return choose_store('sqlite', f'sqlite:///{tmp_path}/zaqar.sqlite')


@pytest.fixture
def pool_uri(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> str:
    """Where pools are: most tests add a name to it, some take it as it is as well.

    A store's path ends at the question mark, so whatever is added after that is the same file.
    """
    as_it_is = ('TestPoolsMongoDB', 'TestSubscriptionsMongoDB')
    name = 'pool?' if request.node.cls.__name__ in as_it_is else ''
    return f'sqlite:///{tmp_path}/{name}'.rstrip('/')


@pytest.fixture
def transport() -> str:
    """Which transport the tests are of: ours, or upstream's own by its name."""
    return 'ours'


def _our_transport(bootstrap: Bootstrap) -> TransportDriver:
    """What upstream's tests get as the transport."""
    return TransportDriver(bootstrap.conf, bootstrap.storage, bootstrap.cache, bootstrap.control)


@pytest.fixture(autouse=True)
def _configuration_files(
    store: dict[str, dict[str, str]],
    pool_uri: str,
    transport: str,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Give the test the configuration files it asks for, on a store of its own."""
    for name, options in SPECIAL.items():
        _write(tmp_path, name, {**store, **options})
    _write(tmp_path, 'wsgi_faulty.conf', FAULTY)
    _write(tmp_path, 'keystone_auth.conf', {**store, **KEYSTONE})
    (tmp_path / 'policy.yaml').write_text('"default": "rule:admin_or_owner"\n')
    monkeypatch.setenv('ZAQAR_TESTS_CONFIGS_DIR', str(tmp_path))
    monkeypatch.setenv('ZAQAR_TEST_MONGODB_URL', pool_uri)
    if transport == 'ours':
        monkeypatch.setattr(
            Bootstrap, 'transport', decorators.lazy_property(write=False)(_our_transport)
        )
    # These drop MongoDB databases; here every test has a file that goes with its directory.
    for case in (
        test_claims.TestClaimsMongoDB,
        test_queue_lifecycle.TestQueueLifecycleMongoDB,
        test_topic_lifecycle.TestTopicLifecycleMongoDB,
    ):
        monkeypatch.setattr(case, 'tearDown', wsgi_base.V2Base.tearDown)
    # Where upstream's application keeps what asks Keystone.
    authenticator = property(lambda app: app._upgrade._authenticator)
    monkeypatch.setattr(Application, '_auth_app', authenticator, raising=False)
    # Upstream closes the control store before the pools, whose list is kept in it.
    monkeypatch.setattr(sqlite.ControlDriver, 'close', lambda self: None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    impossible.expect_failures(items, HERE)
