"""The examples of the guide do what it says."""

from __future__ import annotations

import asyncio
import doctest
import pathlib
import re
import threading
from typing import Any

import pytest

from tests.client.waiting import wait_until
from tests.server_process import ServerProcess
from zaqar_gevent.client import Client, Worker

GUIDE = pathlib.Path(__file__).parents[3] / 'docs' / 'python-client.md'


def test_the_examples_of_the_guide_are_true(server: ServerProcess) -> None:
    text = GUIDE.read_text().replace('http://localhost:8888', server.url)
    names: dict[str, object] = {}
    example = doctest.DocTestParser().get_doctest(text, names, GUIDE.name, str(GUIDE), 0)
    assert len(example.examples) > 20
    report: list[str] = []
    results = doctest.DocTestRunner().run(example, out=report.append, clear_globs=False)
    client = example.globs['zaqar']
    client.close()
    if results.failed:
        pytest.fail('\n'.join(report))


def blocks(page: str) -> list[str]:
    """The examples of a page that are no interactive sessions."""
    text = (GUIDE.parent / page).read_text()
    found = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
    return [block for block in found if not block.startswith('>>>')]


def test_the_example_for_asyncio_is_true(server: ServerProcess) -> None:
    [block] = [one for one in blocks('python-client.md') if 'async def main' in one]
    names: dict[str, Any] = {}
    exec(block, names)
    assert asyncio.run(names['main'](server.url)) == 0


def test_the_examples_of_workers_are_true(server: ServerProcess) -> None:
    settings, worker, tasks = (
        one.replace('http://localhost:8888', server.url) for one in blocks('python-worker.md')
    )
    names: dict[str, Any] = {}
    exec(settings, {})
    with Client(server.url, project='demo') as client:
        queue = client.queue('worker-orders')
        assert queue.get_metadata()['_max_claim_count'] == 3
        queue.post([{'sku': number} for number in range(5)])
        run = worker.replace('.run()', '.run(signals=())')
        thread = threading.Thread(target=exec, args=(run, names), daemon=True)
        with pytest.MonkeyPatch.context() as patch:
            made: list[Worker] = []
            begin = Worker.__init__

            def remember(self: Worker, *arguments: Any, **options: Any) -> None:
                begin(self, *arguments, **options)
                made.append(self)

            patch.setattr(Worker, '__init__', remember)
            thread.start()
            wait_until(lambda: bool(made) and made[0].succeeded == 5, 30, 'all is shipped')
            made[0].stop()
            thread.join(60)
            assert not thread.is_alive()
        queue.post([{'sku': number} for number in range(5)])
        exec(tasks, names)

        async def work() -> None:
            running = asyncio.create_task(names['main'](server.url))
            while (await asyncio.to_thread(queue.stats))['messages']['total']:
                await asyncio.sleep(0.05)
            running.cancel()

        asyncio.run(asyncio.wait_for(work(), 30))


def test_every_link_of_the_guide_leads_somewhere() -> None:
    text = GUIDE.read_text()
    for part in text.split('](')[1:]:
        target = part.split(')')[0]
        if target.startswith('#'):
            assert f'\n## {target[1:].capitalize()}' in text
        else:
            assert (GUIDE.parent / target.split('#')[0]).exists(), target
