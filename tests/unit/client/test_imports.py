"""The client stands alone: it needs nothing of the server."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

NOT_NEEDED = {
    *('falcon', 'gevent', 'geventwebsocket', 'gunicorn', 'keystoneauth1', 'keystonemiddleware'),
    *('msgspec', 'oslo_config', 'oslo_log', 'oslo_policy', 'prometheus_client', 'requests'),
    *('sqlite3', 'stevedore', 'webob', 'zaqar'),
}

SCRIPT = """
import json, sys
before = set(sys.modules)
import zaqar_gevent.client{package}
print(json.dumps(sorted(set(sys.modules) - before)))
"""


@pytest.mark.parametrize(
    ('package', 'needed', 'not_needed'),
    [
        ('', {'msgpack', 'websockets'}, {'httpcore', 'urllib3', 'ws4py'}),
        ('.aio', {'asyncio', 'msgpack', 'websockets'}, {'httpcore', 'urllib3', 'ws4py'}),
    ],
)
def test_importing_it_imports_nothing_of_the_server(
    package: str, needed: set[str], not_needed: set[str]
) -> None:
    finished = subprocess.run(
        [sys.executable, '-c', SCRIPT.replace('{package}', package)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    imported = json.loads(finished.stdout)
    own = {name for name in imported if name.split('.')[0] == 'zaqar_gevent'}
    assert f'zaqar_gevent.client{package or ".sync"}.client' in own
    assert {name for name in own if not name.startswith('zaqar_gevent.client')} == {'zaqar_gevent'}
    others = {name.split('.')[0] for name in imported}
    assert needed <= others
    assert not others & (NOT_NEEDED | not_needed)
