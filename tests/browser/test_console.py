"""What a person does with the console, end to end, in Chromium."""

from __future__ import annotations

import json
import pathlib
import time

import pytest

from tests.browser.another_client import AnotherClient
from tests.browser.console_page import CONTROL, WAIT_SECONDS, ConsolePage, WatchedChromium
from tests.server_process import ServerProcess
from zaqar_gevent.client import Client


def test_the_first_load_connects_and_says_what_to_do(page: ConsolePage) -> None:
    page.open()
    page.sees('WebSocket', '#connection')
    page.sees('MsgPack', '#connection')
    page.sees(page.project[:8], '#connection')
    page.sees(f'The project “{page.project}” has no queues yet.')
    assert page.evaluate('document.title') == 'Queues · Zaqar console'


def test_a_queue_is_created_with_metadata(page: ConsolePage, other: AnotherClient) -> None:
    page.open()
    page.press('Create the first queue')
    page.fill('Name', 'orders')
    page.fill('Metadata', '{"_default_message_ttl": 600, "team": "shop"}')
    page.press('Create')
    page.sees('Live tail')
    assert page.text('h1') == 'orders'
    assert other.metadata('orders')['team'] == 'shop'
    page.press('Queues')
    page.sees('orders', 'table')
    page.sees('1', 'h1')


def test_what_cannot_be_is_said_where_it_was_entered(
    page: ConsolePage, other: AnotherClient
) -> None:
    page.open()
    page.press('New queue')
    page.press('Create')
    page.sees('This is needed.', 'dialog')
    assert page.focused() == 'Name'
    page.fill('Name', 'orders')
    page.fill('Metadata', '{"a": }')
    page.press('Create')
    page.sees('This is not JSON', 'dialog')
    assert page.focused() == 'Metadata'
    page.fill('Metadata', '')
    page.fill('Name', 'no such name')
    page.press('Create')
    page.sees('(400)', 'dialog')
    page.press('Cancel')
    page.wait("!document.querySelector('dialog')")
    assert other.call('queue_list').body['queues'] == []


def test_a_message_is_posted_and_seen_in_the_tail(page: ConsolePage, other: AnotherClient) -> None:
    other.call('queue_create', queue_name='orders')
    page.open_tail('orders')
    page.fill('Body', '{"sku": 9007199254740993, "text": "é"}')
    page.fill('TTL, s', '120')
    page.press('Post')
    page.sees('{"sku":9007199254740993,"text":"é"}', '.messages')
    assert other.bodies('orders') == [{'sku': 9007199254740993, 'text': 'é'}]
    page.fill('Body', '[1, 2]')
    page.key('Enter', modifiers=CONTROL)
    page.sees('[1,2]', '.messages')
    page.fill('TTL, s', '1')
    page.press('Post')
    page.sees('(400)', '.post')
    assert len(other.bodies('orders')) == 2


def test_the_tail_shows_at_once_what_another_client_posts(
    page: ConsolePage, other: AnotherClient
) -> None:
    other.post('orders', 'before')
    page.open_tail('orders')
    other.post('orders', {'n': 1}, {'n': 2})
    page.sees('{"n":2}', '.messages', seconds=2)
    assert page.text('.messages').index('{"n":2}') < page.text('.messages').index('{"n":1}')
    assert 'before' not in page.text('.messages')
    page.sees('2 received')
    page.choose('Where to begin', 'start')
    page.sees('before', '.messages')
    page.sees('3 received')


def test_a_message_is_opened_and_deleted_in_the_tail(
    page: ConsolePage, other: AnotherClient
) -> None:
    other.call('queue_create', queue_name='orders')
    page.open_tail('orders')
    other.post('orders', {'first': [1]}, {'second': {'deep': True}})
    page.sees('{"second":', '.messages')
    page.evaluate("document.querySelector('.message-line').click()")
    page.sees('"deep": true', '.message pre')
    page.press('Delete')
    page.sees_no_more('second', '.messages')
    assert other.bodies('orders') == [{'first': [1]}]


def test_a_paused_tail_stands_still_and_loses_nothing(
    page: ConsolePage, other: AnotherClient
) -> None:
    other.call('queue_create', queue_name='orders')
    page.open_tail('orders')
    page.press('Pause')
    other.post('orders', 'one', 'two')
    page.sees('Held, 2 more')
    assert page.text('.messages') == ''
    page.press('Resume')
    page.sees('two', '.messages')
    page.sees('one', '.messages')


def test_counts_and_rates_follow_what_happens(page: ConsolePage, other: AnotherClient) -> None:
    other.call('queue_create', queue_name='orders')
    page.open()
    page.sees('orders', 'table')
    other.post('orders', *range(20))
    page.wait("document.querySelector('tbody td').textContent === '20'")
    page.wait("Number(document.querySelectorAll('tbody td')[2].textContent) > 1")
    page.press('orders')
    page.sees('20', '.counts')
    page.wait("document.querySelector('.live')?.dataset.state === 'live'")
    # As many go as come: only who counts each message sees it.
    other.post('orders', *range(20))
    other.call('message_delete_many', queue_name='orders', pop=20)
    page.wait("parseFloat(document.querySelector('.of-in + dd').textContent) > 1")
    page.wait("parseFloat(document.querySelector('.of-out + dd').textContent) > 1")


def test_each_message_is_counted_on_demand(page: ConsolePage, other: AnotherClient) -> None:
    other.call('queue_create', queue_name='idle')
    # So many that none is gone before it could be sent.
    for _ in range(50):
        other.post('orders', *range(20))
    page.open()
    page.press('Count each message')
    page.sees('sent here and counted')
    cell = '[...document.querySelectorAll("tbody tr")].at(-1).cells[{}].textContent'
    # As many go as come: the counts stay what they are.
    seen = [f'parseFloat({cell.format(column)}) > 5' for column in (3, 4)]
    deadline = time.monotonic() + WAIT_SECONDS
    while not all(map(page.evaluate, seen)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
        other.post('orders', *range(20))
        other.call('message_delete_many', queue_name='orders', pop=20)
    page.press('Stop counting')
    page.sees('the least that can have happened')


def test_a_message_that_is_read_holds_the_tail(page: ConsolePage, other: AnotherClient) -> None:
    other.call('queue_create', queue_name='orders')
    page.open_tail('orders')
    other.post('orders', 'one')
    page.sees('one', '.messages')
    page.evaluate("document.querySelector('.message-line').click()")
    other.post('orders', 'two')
    page.sees('Held, 1 more')
    page.press('Resume')
    page.sees('two', '.messages')
    assert page.evaluate("document.querySelector('[aria-expanded=true]')") is None
    page.evaluate("document.querySelector('.tail select').focus()")
    page.tab_to(page.evaluate("document.querySelector('.message-line').textContent"))
    other.post('orders', 'three')
    page.sees('Held, 1 more')
    page.key('Escape')
    page.sees('three', '.messages')
    assert page.focused() == 'Pause'


def test_messages_are_claimed_deleted_and_released(page: ConsolePage, other: AnotherClient) -> None:
    other.post('orders', *[{'n': n} for n in range(5)])
    page.open('#/queues/orders/claims')
    page.fill('Messages', '3')
    page.fill('Claim TTL, s', '120')
    page.press('Claim')
    page.sees('3 messages', '.claim')
    page.sees('left', '.claim')
    stats = other.call('queue_get_stats', queue_name='orders').body['messages']
    assert (stats['claimed'], stats['free']) == (3, 2)
    # What is claimed is there still when one comes back.
    page.press('Messages')
    page.sees('Live tail')
    page.press('Claims')
    page.sees('3 messages', '.claim')
    page.evaluate("document.querySelector('.claim .with-action > .button').click()")
    page.sees('2 messages', '.claim')
    assert other.bodies('orders') == [{'n': n} for n in range(1, 5)]
    page.press('Renew')
    page.sees('Renewed.')
    page.press('Release')
    page.sees('No claim is held here.')
    stats = other.call('queue_get_stats', queue_name='orders').body['messages']
    assert (stats['claimed'], stats['free']) == (0, 4)
    page.fill('Messages', '10')
    page.press('Claim')
    page.press('Delete all')
    page.sees('No claim is held here.')
    assert other.bodies('orders') == []
    page.press('Claim')
    page.sees('There is nothing to claim.')


def test_metadata_is_seen_and_only_what_was_changed_is_sent(
    page: ConsolePage, other: AnotherClient
) -> None:
    other.call('queue_create', queue_name='orders', metadata={'a/b~c': 1, 'gone': True, 'kept': 1})
    page.open('#/queues/orders/metadata')
    page.wait("findField('Metadata')?.value.includes('_default_message_ttl')")
    shown = json.loads(page.evaluate("findField('Metadata').value"))
    assert shown['a/b~c'] == 1
    del shown['gone']
    page.fill('Metadata', json.dumps(shown | {'a/b~c': {'x': [1]}, 'new': 'é'}))
    # What somebody else changes meanwhile is not changed back.
    change = {'op': 'replace', 'path': '/metadata/kept', 'value': 2}
    assert other.call('queue_update', queue_name='orders', changes=[change]).status == 200
    page.press('Save')
    page.sees('Saved.')
    saved = other.metadata('orders')
    assert (saved['a/b~c'], saved['new'], saved['kept']) == ({'x': [1]}, 'é', 2)
    assert 'gone' not in saved
    page.fill('Metadata', '[]')
    page.press('Save')
    page.sees('An object is wanted')


def test_a_queue_is_purged_and_deleted_after_a_question(
    page: ConsolePage, other: AnotherClient
) -> None:
    other.post('orders', 1, 2)
    page.open('#/queues/orders')
    page.press('Purge…')
    page.wait("document.activeElement?.textContent === 'Cancel'")
    page.press('Purge')
    page.sees('has been purged')
    assert other.bodies('orders') == []
    page.press('Delete…')
    page.wait("document.activeElement?.textContent === 'Cancel'")
    page.press('Cancel')
    assert len(other.call('queue_list').body['queues']) == 1
    page.press('Delete…')
    page.press('Delete')
    page.sees('has no queues yet')
    assert other.call('queue_list').body['queues'] == []


def test_to_look_at_a_queue_that_is_not_there_does_not_make_it(
    page: ConsolePage, other: AnotherClient
) -> None:
    other.call('queue_create', queue_name='orders-2')
    page.open('#/queues/orders')
    page.sees('There is no queue “orders”.')
    assert [one['name'] for one in other.call('queue_list').body['queues']] == ['orders-2']
    page.press('Create it')
    page.sees('Live tail')


def test_topics_are_created_posted_to_and_followed(page: ConsolePage, other: AnotherClient) -> None:
    page.open('#/topics')
    page.press('Create the first topic')
    page.fill('Name', 'news')
    page.press('Create')
    page.sees('Waiting for messages.')
    assert 'Claims' not in page.text('main')
    page.wait("document.querySelector('.live')?.dataset.state === 'live'")
    other.post('news', 'hear', kind='topic')
    page.sees('hear', '.messages')
    page.fill('Body', '"hear too"')
    page.press('Post')
    page.sees('hear too', '.messages')
    page.press('Delete…')
    page.press('Delete')
    page.sees('has no topics yet')


@pytest.mark.parametrize('section', ['queues', 'topics'])
def test_subscriptions_are_listed_created_and_deleted(
    page: ConsolePage, other: AnotherClient, section: str
) -> None:
    kind = section.removesuffix('s')
    other.call(f'{kind}_create', **{f'{kind}_name': 'orders'})
    page.open(f'#/{section}/orders/subscriptions')
    page.sees('Nobody is subscribed.')
    page.press('New subscription')
    page.fill('Subscriber', 'gopher://nowhere')
    page.press('Subscribe')
    page.sees('(400)', 'dialog')
    page.fill('Subscriber', 'http://127.0.0.1:9/hook')
    page.fill('TTL, s', '600')
    page.fill('Options', '{"from": "console"}')
    page.press('Subscribe')
    page.sees('http://127.0.0.1:9/hook', 'table')
    action = 'subscription_list' if kind == 'queue' else 'topic_subscription_list'
    (made,) = other.call(action, **{f'{kind}_name': 'orders'}).body['subscriptions']
    assert (made['ttl'], made['options']) == (600, {'from': 'console'})
    page.press('Delete http://127.0.0.1:9/hook')
    page.press('Delete')
    page.sees('Nobody is subscribed.')


def test_a_connected_client_is_no_address(page: ConsolePage, server: ServerProcess) -> None:
    with Client(server.url, project=page.project) as client:
        client.queue('orders').create()
        subscription = client.queue('orders').subscribe(marker='')
        client.queue('orders').post('first')
        next(subscription)
        page.open('#/queues/orders/subscriptions')
        page.sees('A connected client', 'table')
        assert '127.0.0.1' not in page.text('table')
        assert page.text('.row-actions') == ''


def test_pools_and_flavors_are_hidden_where_they_are_not_offered(page: ConsolePage) -> None:
    page.open()
    page.sees('has no queues yet')
    assert page.text('#sections').split() == ['Queues', 'Topics']


def test_pools_and_flavors_are_managed_in_admin_mode(
    browser: WatchedChromium, tmp_path: pathlib.Path
) -> None:
    config = '[DEFAULT]\nadmin_mode = True\npooling = True\n'
    with (
        ServerProcess(tmp_path, config=config) as server,
        browser.console(server.url) as page,
    ):
        page.open()
        page.evaluate("document.getElementById('connection').click()")
        page.fill('Roles', 'admin')
        page.press('Connect')
        page.press('Pools')
        page.sees('There are no pools yet.')
        page.press('New pool')
        page.fill('Name', 'one')
        page.fill('URI', f'sqlite:///{tmp_path}/one.sqlite')
        page.press('Create')
        page.sees('one.sqlite', 'table')
        page.press('Edit one')
        page.fill('Weight', '7')
        page.press('Save')
        page.sees('7', 'td.number')
        page.press('Flavors')
        page.sees('There are no flavors yet.')
        page.press('New flavor')
        page.fill('Name', 'fast')
        page.fill('Pools', 'one')
        page.press('Create')
        page.sees('fast', 'table')
        page.press('Delete fast')
        page.press('Delete')
        page.sees('There are no flavors yet.')
        page.press('Pools')
        page.press('Delete one')
        page.press('Delete')
        page.sees('There are no pools yet.')
        assert page.complaints == []
