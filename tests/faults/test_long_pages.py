"""Pages of very long bodies end early, so that nobody waits for a hundred megabytes."""

from __future__ import annotations

import pathlib

import pytest

from tests.callers import TRANSPORTS, connect
from tests.faults.light_load import PROMPT, LightLoad
from tests.faults.memory import MB, Peak
from tests.server_process import ServerProcess
from zaqar_gevent.storage.sqlite import messages

BODY_BYTES = 3 * MB
COUNT = 20
SECONDS = 1.0
CONFIG = '[transport]\nmax_messages_post_size = 11000000\n'
# Of all that is listed: what is given of a page is kept several times until it is written.
MOST = 4


@pytest.mark.parametrize('transport', ['rest', 'v2-msgpack'])
def test_pages_end_after_some_megabytes(tmp_path: pathlib.Path, transport: str) -> None:
    assert transport in TRANSPORTS
    with ServerProcess(tmp_path, config=CONFIG) as server:
        caller = connect(transport, server.url, server.websocket_url)
        for number in range(COUNT):
            body = f'{number:03}' + 'x' * BODY_BYTES
            posted = caller.call('message_post', queue_name='q', messages=[{'body': body}])
            assert posted.status == 201
        peak = Peak(server.pid)
        with LightLoad(server.port) as others:
            for _ in others.seconds(SECONDS):
                found, marker, pages = [], None, 0
                while len(found) < COUNT:
                    more = {} if marker is None else {'marker': marker}
                    page = caller.call(
                        'message_list', queue_name='q', echo=True, limit=COUNT, **more
                    )
                    assert page.status == 200
                    bodies = [message['body'] for message in page.body['messages']]
                    assert 0 < sum(map(len, bodies)) < messages.PAGE_BYTES + BODY_BYTES + 1000
                    found += [body[:3] for body in bodies]
                    marker, pages = page.body['marker'], pages + 1
                assert found == [f'{number:03}' for number in range(COUNT)]
                assert pages > 1
        growth = peak.growth
        caller.close()
    print(f'grown by {growth / MB:.0f} MB')
    assert growth < MOST * COUNT * BODY_BYTES
    assert others.p99 < PROMPT
