"""Pictures of the console for its documentation: `python -m tests.browser.pictures docs/images`.

Of a real server in real use: orders come and are worked off while the pictures are taken.
"""

from __future__ import annotations

import pathlib
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.browser.console_page import ConsolePage, WatchedChromium
from tests.browser.hosts import running_chromium
from tests.server_process import ServerProcess
from zaqar_gevent.client import Client

# How many messages a second come to a queue, how many are taken, and how many are there at first.
QUEUES = {
    'audit': (1, 0, 1_204),
    'images.resize': (12, 9, 87),
    'invoices': (3, 3, 14),
    'mail.outgoing': (6, 8, 310),
    'mail.bounced': (0, 0, 3),
    'orders': (24, 24, 41),
    'orders.dead-letter': (0, 0, 2),
    'payments': (18, 18, 9),
    'search.index': (40, 34, 655),
    'sms': (0, 0, 0),
    'stock': (9, 9, 22),
    'webhooks': (15, 11, 128),
}
PLACES = ('Berlin', 'Kraków', 'Lisboa', 'Malmö', 'Nantes', 'Wien', 'Zürich')
STEP_SECONDS = 0.5
SETTLE_SECONDS = 62
RANDOM = random.Random(42)


def an_order(number: int) -> dict[str, object]:
    lines = [
        {'sku': RANDOM.randrange(1000, 9999), 'count': RANDOM.randrange(1, 5)}
        for _ in range(RANDOM.randrange(1, 4))
    ]
    return {'order': 48_000 + number, 'city': RANDOM.choice(PLACES), 'lines': lines}


@contextmanager
def traffic(client: Client) -> Iterator[None]:
    """Messages that come and go in all queues."""
    for name, (_, _, waiting) in QUEUES.items():
        client.queue(name).create()
        for first in range(0, waiting, 20):
            orders = [an_order(first + one) for one in range(min(20, waiting - first))]
            client.queue(name).post(orders, ttl=3600)
    over = threading.Event()
    worker = threading.Thread(target=_work, args=(client, over))
    worker.start()
    yield
    over.set()
    worker.join()


def _work(client: Client, over: threading.Event) -> None:
    number = 1000
    while not over.wait(STEP_SECONDS):
        swing = RANDOM.uniform(0.5, 1.5)
        for name, (coming, going, _) in QUEUES.items():
            count = round(coming * STEP_SECONDS * swing)
            if count:
                client.queue(name).post([an_order(number + one) for one in range(count)], ttl=3600)
                number += count
            if going:
                client.queue(name).pop(max(1, min(20, round(going * STEP_SECONDS * swing))))


def take(page: ConsolePage, folder: pathlib.Path) -> None:
    page.prefer(color_scheme='light')
    page.open('#/queues/orders')
    page.sees('received')
    time.sleep(SETTLE_SECONDS)
    _open_second_message(page)
    page.picture(folder / 'console-queue-light.png')
    page.prefer(color_scheme='dark')
    time.sleep(0.5)
    page.picture(folder / 'console-queue-dark.png')
    page.go('#/queues')
    page.sees('webhooks', 'table')
    page.press('Count each message')
    page.command('Input.dispatchMouseEvent', type='mouseMoved', x=0, y=0)
    time.sleep(SETTLE_SECONDS)
    page.picture(folder / 'console-queues-dark.png')
    page.prefer(color_scheme='light')
    time.sleep(0.5)
    page.picture(folder / 'console-queues-light.png')
    page.resize(360, 720, phone=True, scale=1.5)
    time.sleep(1)
    page.picture(folder / 'console-phone-queues.png')
    page.go('#/queues/orders')
    page.sees('received')
    time.sleep(10)
    page.prefer(color_scheme='dark')
    page.evaluate("document.querySelector('.tabs').scrollIntoView()")
    page.evaluate('scrollBy(0, -90)')
    time.sleep(0.5)
    page.picture(folder / 'console-phone-queue.png')


def _open_second_message(page: ConsolePage) -> None:
    page.evaluate("document.querySelectorAll('.message-line')[2].click()")
    time.sleep(0.5)


def main(folder: pathlib.Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as state,
        ServerProcess(pathlib.Path(state) / 'server') as server,
        running_chromium(pathlib.Path(state) / 'profile') as chromium,
        Client(server.url, project='shop') as client,
        traffic(client),
        WatchedChromium(chromium).console(server.url, 'shop', 1200, 760) as page,
    ):
        take(page, folder)


if __name__ == '__main__':
    main(pathlib.Path(sys.argv[1]))
