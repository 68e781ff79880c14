"""Many queues and many messages, and what is reckoned from them."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.browser.console_page import ConsolePage
from tests.server_process import ServerProcess
from zaqar_gevent.client import Client

QUEUES = 10_000
ROWS = 40


PACE = 1000
FLOOD_SECONDS = 5
BATCH = 50


_MEASURE_FRAMES = """(() => {
  globalThis.measured = [0, 0, 0];
  let before = performance.now();
  requestAnimationFrame(function measure(now) {
    const shown = document.querySelectorAll('.message').length;
    measured[0] = Math.max(measured[0], now - before);
    measured[1] += 1;
    measured[2] = Math.max(measured[2], shown);
    before = now;
    requestAnimationFrame(measure);
  });
})()"""


def test_ten_thousand_queues_are_shown_a_page_at_a_time(
    page: ConsolePage, server: ServerProcess
) -> None:
    with Client(server.url, project=page.project) as client:
        names = [f'q{number:05}' for number in range(QUEUES)]
        with ThreadPoolExecutor(32) as pool:
            assert all(pool.map(lambda name: client.queue(name).create(), names))
    page.open()
    page.sees('q00000', 'table', seconds=3)
    page.sees('10,000', 'h1')
    rows = "document.querySelectorAll('tbody tr').length"
    assert 20 <= page.evaluate(rows) <= ROWS
    nodes = page.evaluate("document.querySelectorAll('*').length")
    assert nodes < 1500
    first_of_next = f'q{page.evaluate(rows):05}'
    page.press('Next')
    page.sees(first_of_next, 'table')
    page.sees_no_more('q00000', 'table')
    page.press('Previous')
    page.sees('q00000', 'table')
    assert page.evaluate("findControl('Previous').disabled")
    page.fill('Filter queues by name', '0777')
    page.sees('q00777', 'table')
    page.sees('q07770', 'table')
    page.sees_no_more('q00000', 'table')
    page.fill('Filter queues by name', 'no such')
    page.sees('No queue has “no such” in its name.')


def test_a_tail_of_a_thousand_messages_a_second_is_followed_at_ease(
    page: ConsolePage, server: ServerProcess
) -> None:
    """In bounded many elements, with the page at hand all the while, and none left out."""
    with Client(server.url, project=page.project) as client:
        client.queue('flood').create()
        page.open_tail('flood')
        page.evaluate(_MEASURE_FRAMES)
        began = time.monotonic()
        for number in range(0, PACE * FLOOD_SECONDS, BATCH):
            client.queue('flood').post([{'n': number + one} for one in range(BATCH)], ttl=600)
            time.sleep(max(0, began + (number + BATCH) / PACE - time.monotonic()))
        spent = time.monotonic() - began
    page.sees(f'{PACE * FLOOD_SECONDS:,} received, the latest 200 shown')
    longest, frames, most = page.evaluate('measured')
    print(f'{spent:.1f} s: {frames} frames, at most {longest:.0f} ms apart, {most} messages shown')
    assert most <= 200
    assert longest < 2000
    assert frames > 2 * FLOOD_SECONDS
    last = PACE * FLOOD_SECONDS - 1
    assert f'{{"n":{last}}}' in page.text('.message-line')
    shown = page.evaluate(
        "[...document.querySelectorAll('.message-body')].map((one) => one.textContent)"
    )
    assert shown == [f'{{"n":{last - one}}}' for one in range(200)]


def call_module(page: ConsolePage, name: str, expression: str) -> Any:
    """The value of an expression over what a module of the console exports."""
    return page.evaluate(f"import('/console/{name}').then((module) => {expression})")


def test_rates_are_the_least_that_can_have_happened(page: ConsolePage) -> None:
    page.open()

    def rates(*looks: tuple[float, int, str | None, int | None]) -> Any:
        added = ''.join(
            f'rates.add({at}, {{total: {total}, newest: {{id: {json.dumps(newest)}}}}},'
            f' {json.dumps(arrived)});'
            for at, total, newest, arrived in looks
        )
        expression = f'{{const rates = new module.Rates(); {added} return rates.current();}}'
        return call_module(page, 'rates.js', expression)

    assert rates((0, 5, 'a', None)) is None
    assert rates((0, 0, None, None), (2, 10, 'b', None)) == {'in': 5, 'out': 0}
    assert rates((0, 10, 'b', None), (2, 4, 'b', None)) == {'in': 0, 'out': 3}
    # As many as before, but the newest is another one: one at least has come, and one gone.
    assert rates((0, 4, 'a', None), (2, 4, 'b', None)) == {'in': 0.5, 'out': 0.5}
    # Where arrivals are counted, so is what left.
    assert rates((0, 4, 'a', 100), (2, 4, 'b', 140)) == {'in': 20, 'out': 20}
    # Where counting began between two looks, all that was counted came between them.
    assert rates((0, 4, 'a', None), (2, 4, 'b', 40)) == {'in': 20, 'out': 20}
    # A message that is counted before it has arrived makes no departure.
    assert rates((0, 0, None, 0), (1, 5, 'b', 0), (2, 5, 'b', 5)) == {'in': 2.5, 'out': 0}
    # What happened while nobody looked is not taken for now.
    assert rates((0, 0, None, None), (60, 500, 'b', None)) is None
    # Ten seconds count.
    assert rates((0, 0, 'a', None), (9, 90, 'b', None), (18, 90, 'b', None)) == {'in': 0, 'out': 0}


@pytest.mark.parametrize(
    ('seconds', 'text'),
    [
        *((0, '0 s'), (59.4, '59 s'), (60, '1 min'), (125, '2 min 5 s')),
        *((3600, '1 h'), (93_600, '1 d 2 h'), (-3, '0 s')),
    ],
)
def test_times_are_written_in_their_largest_units(
    page: ConsolePage, seconds: float, text: str
) -> None:
    page.open()
    assert call_module(page, 'format.js', f'module.duration({seconds})') == text
