"""The client stands alone: it needs nothing of the server."""

from __future__ import annotations

import json
import subprocess
import sys

NOT_NEEDED = {
    *('falcon', 'gevent', 'geventwebsocket', 'gunicorn', 'keystoneauth1', 'keystonemiddleware'),
    *('msgspec', 'oslo_config', 'oslo_log', 'oslo_policy', 'prometheus_client', 'requests'),
    *('sqlite3', 'stevedore', 'webob', 'websockets', 'zaqar'),
}

SCRIPT = """
import json, sys
before = set(sys.modules)
import zaqar_gevent.client
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def test_importing_it_imports_nothing_of_the_server() -> None:
    finished = subprocess.run(
        [sys.executable, '-c', SCRIPT], capture_output=True, text=True, check=True, timeout=60
    )
    imported = json.loads(finished.stdout)
    own = {name for name in imported if name.split('.')[0] == 'zaqar_gevent'}
    assert 'zaqar_gevent.client.client' in own
    assert {name for name in own if not name.startswith('zaqar_gevent.client')} == {'zaqar_gevent'}
    others = {name.split('.')[0] for name in imported}
    assert {'msgpack', 'urllib3', 'ws4py'} <= others
    assert not others & NOT_NEEDED
