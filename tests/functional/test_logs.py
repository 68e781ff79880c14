"""What the log may hold: no message and no token."""

from __future__ import annotations

import pathlib

from tests.callers import TRANSPORTS, connect
from tests.server_process import ServerProcess

SECRET = 'a-secret-that-must-not-be-logged'


def test_neither_bodies_nor_tokens_are_logged(tmp_path: pathlib.Path) -> None:
    config = '[DEFAULT]\nadmin_mode = True\nlog_file =\n'
    with ServerProcess(tmp_path, config=config) as server:
        for transport in TRANSPORTS:
            caller = connect(transport, server.url, server.websocket_url)
            headers = {**caller.identity.headers(), 'X-Auth-Token': SECRET}
            for messages in ([{'body': SECRET}], [{'body': SECRET, 'ttl': SECRET}]):
                caller.call('message_post', headers=headers, queue_name='q', messages=messages)
            caller.call('message_list', headers=headers, queue_name='q', echo=True)
            caller.call('queue_create', headers=headers, queue_name=SECRET * 9)
            caller.close()
        server.stop()
    assert SECRET not in '\n'.join(server.output)
