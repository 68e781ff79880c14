"""A server that is down is told once, with its address, and so is that it is back."""

from __future__ import annotations

import asyncio
import pathlib
import threading
import uuid
from typing import Any

import pytest

from tests.client.waiting import wait_until
from tests.ports import free_port
from tests.server_process import ServerProcess
from zaqar_gevent.client import Client, Worker, aio
from zaqar_gevent.client.outage import TELL_SECONDS, Outage

SECONDS = 60.0


def records(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.name.endswith('.outage')]


@pytest.mark.parametrize('transport', ['auto', 'websocket', 'rest'])
def test_a_worker_tells_that_there_is_no_server_and_when_there_is(
    caplog: pytest.LogCaptureFixture, transport: Any, tmp_path: pathlib.Path
) -> None:
    port = free_port()
    url = f'http://127.0.0.1:{port}'
    with Client(url, project=uuid.uuid4().hex, transport=transport) as client:
        worker = Worker(client.queue('orders'), lambda _: worker.stop())
        thread = threading.Thread(target=worker.run, daemon=True)
        thread.start()
        wait_until(lambda: bool(records(caplog)), SECONDS, 'it is told')
        [warning] = records(caplog)
        with ServerProcess(tmp_path, '--port', str(port)):
            client.queue('orders').post(1)
            thread.join(SECONDS)
            assert not thread.is_alive()
            assert worker.succeeded == 1
    assert records(caplog)[0] == warning
    [end] = records(caplog)[1:]
    assert end.startswith(f'The connection to {url} is back')
    assert warning.startswith(f'No connection to {url}: ')
    assert warning.endswith('The client goes on trying.')


def test_a_subscriber_of_asyncio_tells_that_there_is_no_server(
    caplog: pytest.LogCaptureFixture,
) -> None:
    url = f'http://127.0.0.1:{free_port()}'

    async def wait() -> None:
        async with aio.Client(url, project=uuid.uuid4().hex) as client:
            subscribing = asyncio.ensure_future(client.queue('orders').subscribe(marker=''))
            while not records(caplog):
                await asyncio.sleep(0.05)
            subscribing.cancel()

    asyncio.run(asyncio.wait_for(wait(), SECONDS))
    assert url in records(caplog)[0]


def test_each_outage_is_told_once_with_its_end(caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage('http://localhost:1')
    for _ in range(2):
        outage.failed('Refused.')
        assert not records(caplog)
        outage.failed('Refused.', TELL_SECONDS)
        outage.failed('Refused.', TELL_SECONDS)
        outage.over()
        outage.over()
        warning, end = records(caplog)
        assert warning == 'No connection to http://localhost:1: Refused. The client goes on trying.'
        assert end.startswith('The connection to http://localhost:1 is back')
        caplog.clear()


def test_a_short_outage_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage('http://localhost:1')
    outage.failed('Refused.')
    outage.over()
    assert not caplog.records
