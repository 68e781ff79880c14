"""What strangers have put into a project is shown as text, whatever it is."""

from __future__ import annotations

import json

import pytest

from tests.browser.another_client import AnotherClient
from tests.browser.console_page import ConsolePage
from tests.browser.hostile import BODIES as HOSTILE


def test_hostile_bodies_are_texts(page: ConsolePage, other: AnotherClient) -> None:
    other.post('orders', *HOSTILE)
    page.open('#/queues/orders')
    page.choose('Where to begin', 'start')
    page.wait(f"document.querySelectorAll('.message').length === {len(HOSTILE)}")
    page.evaluate("document.querySelectorAll('.message-line').forEach((line) => line.click())")
    page.sees(HOSTILE[0].replace('"', '\\"'), '.messages')
    assert str(2**63 - 1) in page.text('.messages')
    assert str(-(2**53) - 1) in page.text('.messages')
    assert page.evaluate("document.querySelectorAll('main img, main script').length") == 0
    page.open('#/queues/orders/claims')
    page.press('Claim')
    page.sees(f'{len(HOSTILE)} messages', '.claim')
    assert page.evaluate('[globalThis.pwned, {}.polluted].every((one) => one === undefined)')


@pytest.mark.parametrize('name', ['..', '.', '__proto__', 'constructor', 'a' * 64, '%41'])
def test_odd_names_are_names(page: ConsolePage, other: AnotherClient, name: str) -> None:
    page.open()
    page.press('New queue')
    page.fill('Name', name)
    page.press('Create')
    if name == '%41':
        page.sees('(400)', 'dialog')
        return
    page.wait(f'document.querySelector("h1").textContent === {json.dumps(name)}')
    page.wait("document.querySelector('.live')?.dataset.state === 'live'")
    page.fill('Body', '"here"')
    page.press('Post')
    page.sees('here', '.messages')
    page.press('Queues')
    page.sees(name, 'table')


@pytest.mark.parametrize(
    'place',
    [
        '#/queues/' + '%3Cimg%20src%3Dx%20onerror%3D%22globalThis.pwned%3D1%22%3E',
        '#/queues/%E0%A4%A',
        '#/__proto__/constructor',
        '#javascript:globalThis.pwned=1',
        '#/queues/a/b/c/d',
        '#' + 'x' * 5000,
    ],
)
def test_hostile_addresses_lead_nowhere(page: ConsolePage, place: str) -> None:
    page.open(place)
    page.sees('WebSocket', '#connection')
    page.wait("document.querySelector('h1')")
    page.sees_no_more('Loading…')
    assert page.evaluate('globalThis.pwned') is None
    assert page.evaluate("document.querySelectorAll('main img, main script').length") == 0


def test_hostile_names_from_the_server_are_texts(page: ConsolePage, other: AnotherClient) -> None:
    subscriber = 'http://127.0.0.1:9/<img src=x onerror=globalThis.pwned=1>'
    other.call('queue_create', queue_name='q', metadata={'<b>k</b>': '</textarea><script>'})
    made = other.call('subscription_create', queue_name='q', subscriber=subscriber, ttl=600)
    assert made.status == 201
    page.open('#/queues/q/subscriptions')
    page.sees('<img src=x', 'table')
    page.go('#/queues/q/metadata')
    page.wait("findField('Metadata')?.value.includes('</textarea><script>')")
    assert page.evaluate('globalThis.pwned') is None
    assert page.evaluate("document.querySelectorAll('main img, main script').length") == 0
