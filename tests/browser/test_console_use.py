"""The console by keyboard alone, on a phone, in light and dark, and as axe-core sees it."""

from __future__ import annotations

import os
import pathlib

import pytest

from tests.browser.another_client import AnotherClient
from tests.browser.console_page import CONTROL, SHIFT, ConsolePage
from tests.browser.hostile import BODIES as HOSTILE


def test_everything_can_be_done_by_keyboard(page: ConsolePage, other: AnotherClient) -> None:
    page.open()
    page.sees('has no queues yet')
    page.key('Tab')
    assert page.focused() == 'Skip to the content'
    page.key('Enter')
    page.wait("document.activeElement.id === 'main'")
    page.tab_to('New queue')
    page.key('Enter')
    assert page.focused() == 'Name'
    page.write('orders')
    page.key('Enter')
    page.sees('Live tail')
    page.wait("document.querySelector('.live')?.dataset.state === 'live'")
    page.tab_to('Body')
    page.evaluate('document.activeElement.select()')
    page.write('{"by": "keys"}')
    page.key('Enter', modifiers=CONTROL)
    page.sees('{"by":"keys"}', '.messages')
    other.post('orders', 'second')
    page.sees('second', '.messages')
    page.evaluate("document.querySelector('.tail select').focus()")
    page.tab_to(page.evaluate("document.querySelector('.message-line').textContent"))
    page.key('ArrowDown')
    assert '{"by":"keys"}' in page.focused()
    page.key('Enter')
    page.sees('"by": "keys"', '.message pre')
    page.tab_to('Delete')
    page.key(' ')
    page.sees('Deleted.')
    page.tab_to('Claims', modifiers=SHIFT)
    page.key('Enter')
    page.sees('No claim is held here.')
    assert page.focused() == 'Claims'
    page.tab_to('Claim')
    page.key('Enter')
    page.sees('1 message', '.claim')
    page.tab_to('Delete all')
    page.key('Enter')
    page.sees('No claim is held here.')
    assert page.focused() == 'Claim'
    page.tab_to('Delete…', modifiers=SHIFT)
    page.key('Enter')
    assert page.focused() == 'Cancel'
    page.key('Escape')
    page.wait("!document.querySelector('dialog')")
    assert page.focused() == 'Delete…'
    page.key('Enter')
    page.tab_to('Delete')
    page.key('Enter')
    page.sees('has no queues yet')
    assert other.call('queue_list').body['queues'] == []


def test_what_has_the_focus_can_be_seen(page: ConsolePage, other: AnotherClient) -> None:
    other.call('queue_create', queue_name='orders')
    page.open('#/queues/orders')
    page.sees('Waiting for messages.')
    seen = set()
    for _ in range(20):
        page.key('Tab')
        seen.add(page.focused())
        width = page.evaluate("""(() => {
          const style = getComputedStyle(document.activeElement);
          return style.outlineStyle === 'none' ? 0 : parseFloat(style.outlineWidth);
        })()""")
        assert width >= 2 or page.evaluate('document.activeElement === document.body')
    assert {'Queues', 'Messages', 'Pause', 'Clear', 'Body', 'Post', 'Delete…'} <= seen


def test_a_dialog_keeps_the_focus_and_gives_it_back(page: ConsolePage) -> None:
    page.open()
    page.sees('has no queues yet')
    page.tab_to('New queue')
    page.key('Enter')
    for modifiers in (0, SHIFT):
        for _ in range(8):
            page.key('Tab', modifiers=modifiers)
            inside = "document.activeElement.closest('dialog') !== null"
            assert page.evaluate(f'{inside} || document.activeElement === document.body')
    page.key('Escape')
    page.wait("!document.querySelector('dialog')")
    assert page.focused() == 'New queue'


def test_phone_width_needs_no_horizontal_scrolling(page: ConsolePage, other: AnotherClient) -> None:
    long = 'a-name-that-is-as-long-as-a-name-can-be.' + 'x' * 24
    other.post(long, *HOSTILE)
    other.call('subscription_create', queue_name=long, subscriber=f'http://127.0.0.1:9/{long}')
    page.resize(320, 640, phone=True)
    for place in ('', '/', '/claims', '/subscriptions', '/metadata'):
        page.open(f'#/queues/{long}{place}' if place else '#/queues')
        page.sees(long)
        if place == '/':
            page.choose('Where to begin', 'start')
            page.wait("document.querySelectorAll('.message').length > 5")
        if place == '/claims':
            page.press('Claim')
            page.sees('messages', '.claim')
        assert page.evaluate('document.documentElement.scrollWidth') <= 320, place
        assert page.evaluate('innerWidth') == 320, place
    page.evaluate("document.getElementById('connection').click()")
    page.sees('Client-ID', 'dialog')
    box = "document.querySelector('dialog').getBoundingClientRect()"
    left, right = page.evaluate(f'[{box}.left, {box}.right]')
    assert 0 <= left < right <= 320


def test_light_and_dark_are_as_the_system_says_or_as_chosen(page: ConsolePage) -> None:
    def lightness() -> int:
        colour = page.evaluate('getComputedStyle(document.body).backgroundColor')
        return sum(int(part) for part in colour.removeprefix('rgb(').removesuffix(')').split(','))

    page.prefer(color_scheme='light')
    page.open()
    page.sees('has no queues yet')
    assert lightness() > 600
    page.prefer(color_scheme='dark')
    assert lightness() < 150
    page.press('Switch to light')
    assert lightness() > 600
    page.command('Page.reload')
    page.sees('has no queues yet')
    assert lightness() > 600
    page.press('Switch to dark')
    assert lightness() < 150


def test_nothing_moves_for_those_who_do_not_want_it(
    page: ConsolePage, other: AnotherClient
) -> None:
    other.call('queue_create', queue_name='orders')
    moving = 'document.getAnimations().length'
    page.open_tail('orders')
    assert page.evaluate(moving) > 0
    page.prefer(reduced_motion='reduce')
    page.open_tail('orders')
    other.post('orders', 1)
    page.fill('Body', '2')
    page.press('Post')
    page.sees('Posted.')
    assert page.evaluate(moving) == 0


TABS = ('', '/claims', '/subscriptions', '/metadata')


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_axe_finds_nothing_serious(page: ConsolePage, other: AnotherClient, scheme: str) -> None:
    script = os.environ.get('AXE_CORE')
    if script is None:
        pytest.fail('AXE_CORE must say where axe-core is; tox -e browser sees to it')
    page.prefer(color_scheme=scheme)
    other.post('orders', {'n': 1}, 'two')
    other.call('subscription_create', queue_name='orders', subscriber='http://127.0.0.1:9/hook')
    for place in ('queues', 'topics', 'queues/none', *(f'queues/orders{tab}' for tab in TABS)):
        page.open(f'#/{place}')
        page.sees('WebSocket', '#connection')
        page.sees_no_more('Loading…')
        if place == 'queues/orders':
            page.choose('Where to begin', 'start')
            page.sees('two', '.messages')
            page.evaluate("document.querySelector('.message-line').click()")
        if place.endswith('claims'):
            page.press('Claim')
            page.sees('2 messages')
        assert_accessible(page, script, place)
    for opener in ('Delete…', 'Purge…'):
        page.press(opener)
        assert_accessible(page, script, opener)
        page.press('Cancel')
    page.evaluate("document.getElementById('connection').click()")
    page.sees('Client-ID', 'dialog')
    assert_accessible(page, script, 'connection')


def assert_accessible(page: ConsolePage, script: str, place: str) -> None:
    page.evaluate(pathlib.Path(script).read_text())
    found = page.evaluate('axe.run().then(({ violations }) => violations)')
    serious = [
        (place, one['id'], [node['html'][:200] for node in one['nodes']])
        for one in found
        if one['impact'] in ('serious', 'critical')
    ]
    assert serious == []
