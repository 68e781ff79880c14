"""The console end to end, in Chromium: what a person does with it, by mouse and by keys alone."""

from __future__ import annotations

import json
import os
import pathlib
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.browser.console_page import CONTROL, SHIFT, ConsolePage, WatchedChromium
from tests.browser.hosts import running_chromium
from tests.callers import Identity, RestCaller, connect
from tests.functional.test_authentication import POLICY, IdentityService, configuration
from tests.functional.test_observability import Difference, eventually
from tests.intermediaries import Intermediary
from tests.server_process import ServerProcess
from zaqar_gevent.client import Client

HOSTILE = [
    '<img src=x onerror="globalThis.pwned = 1">',
    '</pre></li><script>globalThis.pwned = 2</script>',
    {'__proto__': {'polluted': True}, 'constructor': '<b>bold</b>'},
    ['\u202egnp.exe', '\u0000\u0007\u2028', '\ud83d\ude00' * 50],
    'x' * 100_000,
    [[[[[[[[[[]]]]]]]]]],
    None,
    '',
    2**63 - 1,
    -(2**53) - 1,
]


@pytest.fixture(scope='module')
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedChromium]:
    with running_chromium(tmp_path_factory.mktemp('profile')) as chromium:
        yield WatchedChromium(chromium)


@pytest.fixture(scope='module')
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp('server')) as process:
        yield process


@pytest.fixture
def page(browser: WatchedChromium, server: ServerProcess) -> Iterator[ConsolePage]:
    """A page that nobody has used, in a project that nobody else uses."""
    with browser.console(server.url, uuid.uuid4().hex) as page:
        yield page
        assert page.complaints == []


def client_of(url: str, project: str) -> RestCaller:
    caller = connect('rest', url, '', Identity(project, str(uuid.uuid4())))
    assert isinstance(caller, RestCaller)
    return caller


@pytest.fixture
def other(page: ConsolePage) -> RestCaller:
    """Another client of the page's project."""
    return client_of(page.url, page.project)


def post(other: RestCaller, name: str, *bodies: Any, kind: str = '') -> None:
    messages = [{'body': body, 'ttl': 600} for body in bodies]
    named = {f'{kind or "queue"}_name': name}
    action = f'{kind}_message_post' if kind else 'message_post'
    assert other.call(action, messages=messages, **named).status == 201


def listed(other: RestCaller, name: str) -> list[Any]:
    found = other.call('message_list', queue_name=name, echo=True, include_claimed=True)
    return [message['body'] for message in found.body['messages']]


def metadata_of(other: RestCaller, name: str) -> Any:
    return other.call('queue_get', queue_name=name).body


def open_tail(page: ConsolePage, name: str) -> None:
    """Open a queue's page, and wait until its tail has begun."""
    page.open(f'#/queues/{name}')
    page.sees('Waiting for messages.')
    page.wait("document.querySelector('.live')?.dataset.state === 'live'")


def test_the_first_load_connects_and_says_what_to_do(page: ConsolePage) -> None:
    page.open()
    page.sees('WebSocket', '#connection')
    page.sees('MsgPack', '#connection')
    page.sees(page.project[:8], '#connection')
    page.sees(f'The project “{page.project}” has no queues yet.')
    assert page.evaluate('document.title') == 'Queues · Zaqar console'


def test_a_queue_is_created_with_metadata(page: ConsolePage, other: RestCaller) -> None:
    page.open()
    page.press('Create the first queue')
    page.fill('Name', 'orders')
    page.fill('Metadata', '{"_default_message_ttl": 600, "team": "shop"}')
    page.press('Create')
    page.sees('Live tail')
    assert page.text('h1') == 'orders'
    assert metadata_of(other, 'orders')['team'] == 'shop'
    page.press('Queues')
    page.sees('orders', 'table')
    page.sees('1', 'h1')


def test_what_cannot_be_is_said_where_it_was_entered(page: ConsolePage, other: RestCaller) -> None:
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


def test_a_message_is_posted_and_seen_in_the_tail(page: ConsolePage, other: RestCaller) -> None:
    other.call('queue_create', queue_name='orders')
    open_tail(page, 'orders')
    page.fill('Body', '{"sku": 9007199254740993, "text": "é"}')
    page.fill('TTL, s', '120')
    page.press('Post')
    page.sees('{"sku":9007199254740993,"text":"é"}', '.messages')
    assert listed(other, 'orders') == [{'sku': 9007199254740993, 'text': 'é'}]
    page.fill('Body', '[1, 2]')
    page.key('Enter', modifiers=CONTROL)
    page.sees('[1,2]', '.messages')
    page.fill('TTL, s', '1')
    page.press('Post')
    page.sees('(400)', '.post')
    assert len(listed(other, 'orders')) == 2


def test_the_tail_shows_at_once_what_another_client_posts(
    page: ConsolePage, other: RestCaller
) -> None:
    post(other, 'orders', 'before')
    open_tail(page, 'orders')
    post(other, 'orders', {'n': 1}, {'n': 2})
    page.sees('{"n":2}', '.messages', seconds=2)
    assert page.text('.messages').index('{"n":2}') < page.text('.messages').index('{"n":1}')
    assert 'before' not in page.text('.messages')
    page.sees('2 received')
    page.choose('Where to begin', 'start')
    page.sees('before', '.messages')
    page.sees('3 received')


def test_a_message_is_opened_and_deleted_in_the_tail(page: ConsolePage, other: RestCaller) -> None:
    other.call('queue_create', queue_name='orders')
    open_tail(page, 'orders')
    post(other, 'orders', {'first': [1]}, {'second': {'deep': True}})
    page.sees('{"second":', '.messages')
    page.evaluate("document.querySelector('.message-line').click()")
    page.sees('"deep": true', '.message pre')
    page.press('Delete')
    page.sees_no_more('second', '.messages')
    assert listed(other, 'orders') == [{'first': [1]}]


def test_a_paused_tail_stands_still_and_loses_nothing(page: ConsolePage, other: RestCaller) -> None:
    other.call('queue_create', queue_name='orders')
    open_tail(page, 'orders')
    page.press('Pause')
    post(other, 'orders', 'one', 'two')
    page.sees('Held, 2 more')
    assert page.text('.messages') == ''
    page.press('Resume')
    page.sees('two', '.messages')
    page.sees('one', '.messages')


def test_counts_and_rates_follow_what_happens(page: ConsolePage, other: RestCaller) -> None:
    other.call('queue_create', queue_name='orders')
    page.open()
    page.sees('orders', 'table')
    post(other, 'orders', *range(20))
    page.wait("document.querySelector('tbody td').textContent === '20'")
    page.wait("Number(document.querySelectorAll('tbody td')[2].textContent) > 1")
    page.press('orders')
    page.sees('20', '.counts')
    page.wait("document.querySelector('.live')?.dataset.state === 'live'")
    # As many go as come: only who counts each message sees it.
    post(other, 'orders', *range(20))
    other.call('message_delete_many', queue_name='orders', pop=20)
    page.wait("parseFloat(document.querySelector('.of-in + dd').textContent) > 1")
    page.wait("parseFloat(document.querySelector('.of-out + dd').textContent) > 1")


def test_messages_are_claimed_deleted_and_released(page: ConsolePage, other: RestCaller) -> None:
    post(other, 'orders', *[{'n': n} for n in range(5)])
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
    assert listed(other, 'orders') == [{'n': n} for n in range(1, 5)]
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
    assert listed(other, 'orders') == []
    page.press('Claim')
    page.sees('There is nothing to claim.')


def test_metadata_is_seen_and_only_what_was_changed_is_sent(
    page: ConsolePage, other: RestCaller
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
    saved = metadata_of(other, 'orders')
    assert (saved['a/b~c'], saved['new'], saved['kept']) == ({'x': [1]}, 'é', 2)
    assert 'gone' not in saved
    page.fill('Metadata', '[]')
    page.press('Save')
    page.sees('An object is wanted')


def test_a_queue_is_purged_and_deleted_after_a_question(
    page: ConsolePage, other: RestCaller
) -> None:
    post(other, 'orders', 1, 2)
    page.open('#/queues/orders')
    page.press('Purge…')
    page.wait("document.activeElement?.textContent === 'Cancel'")
    page.press('Purge')
    page.sees('has been purged')
    assert listed(other, 'orders') == []
    page.press('Delete…')
    page.wait("document.activeElement?.textContent === 'Cancel'")
    page.press('Cancel')
    assert len(other.call('queue_list').body['queues']) == 1
    page.press('Delete…')
    page.press('Delete')
    page.sees('has no queues yet')
    assert other.call('queue_list').body['queues'] == []


def test_to_look_at_a_queue_that_is_not_there_does_not_make_it(
    page: ConsolePage, other: RestCaller
) -> None:
    other.call('queue_create', queue_name='orders-2')
    page.open('#/queues/orders')
    page.sees('There is no queue “orders”.')
    assert [one['name'] for one in other.call('queue_list').body['queues']] == ['orders-2']
    page.press('Create it')
    page.sees('Live tail')


def test_topics_are_created_posted_to_and_followed(page: ConsolePage, other: RestCaller) -> None:
    page.open('#/topics')
    page.press('Create the first topic')
    page.fill('Name', 'news')
    page.press('Create')
    page.sees('Waiting for messages.')
    assert 'Claims' not in page.text('main')
    page.wait("document.querySelector('.live')?.dataset.state === 'live'")
    post(other, 'news', 'hear', kind='topic')
    page.sees('hear', '.messages')
    page.fill('Body', '"hear too"')
    page.press('Post')
    page.sees('hear too', '.messages')
    page.press('Delete…')
    page.press('Delete')
    page.sees('has no topics yet')


@pytest.mark.parametrize('section', ['queues', 'topics'])
def test_subscriptions_are_listed_created_and_deleted(
    page: ConsolePage, other: RestCaller, section: str
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


@pytest.fixture(scope='module')
def identity_service() -> Iterator[IdentityService]:
    with IdentityService() as service:
        yield service


@pytest.fixture(scope='module')
def guarded(
    identity_service: IdentityService, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server that wants tokens."""
    state = tmp_path_factory.mktemp('guarded')
    policy = state / 'policy.yaml'
    policy.write_text(POLICY)
    with ServerProcess(state, config=configuration(identity_service, policy)) as process:
        yield process


@pytest.mark.parametrize('transport', ['auto', 'rest'])
def test_a_token_is_asked_for_and_kept_in_memory_alone(
    browser: WatchedChromium,
    guarded: ServerProcess,
    identity_service: IdentityService,
    transport: str,
) -> None:
    project = uuid.uuid4().hex
    token = identity_service.issue(project)
    with browser.console(guarded.url, project) as page:
        page.open()
        page.sees('This server wants a token.', '#banner')
        page.sees('No access', '#connection')
        page.press('Enter a token')
        page.fill('Token', 'no such token')
        page.choose('Transport', transport)
        page.press('Connect')
        page.sees('The token is not accepted', '#banner')
        page.press('Enter a token')
        page.fill('Token', token)
        page.press('Connect')
        page.sees('has no queues yet')
        page.sees('WebSocket' if transport == 'auto' else 'Polling', '#connection')
        assert page.text('#banner') == ''
        page.press('Create the first queue')
        page.fill('Name', 'orders')
        page.press('Create')
        page.sees('Live tail')
        # The policy lets operators delete, and this is none: no token is asked for because of it.
        page.press('Delete…')
        page.press('Delete')
        page.sees('(403)', 'dialog')
        page.press('Cancel')
        assert page.text('#banner') == ''
        kept = page.evaluate('JSON.stringify([{...localStorage}, {...sessionStorage}])')
        assert token not in kept
        assert project in kept
        assert page.evaluate('document.cookie') == ''
        page.command('Page.reload')
        page.sees('This server wants a token.', '#banner')
        assert page.complaints == []


def test_a_token_that_ends_is_asked_for_again(
    browser: WatchedChromium, guarded: ServerProcess, identity_service: IdentityService
) -> None:
    project = uuid.uuid4().hex
    with browser.console(guarded.url, project) as page:
        page.open()
        page.press('Enter a token')
        page.fill('Token', identity_service.issue(project, seconds=3))
        page.press('Connect')
        page.sees('has no queues yet')
        page.sees('The token is not accepted', '#banner')
        page.press('Enter a token')
        page.fill('Token', identity_service.issue(project))
        page.press('Connect')
        page.sees('has no queues yet')
        assert page.complaints == []


def test_polling_is_shown_where_websockets_do_not_get_through(
    browser: WatchedChromium, server: ServerProcess
) -> None:
    project = uuid.uuid4().hex
    other = client_of(server.url, project)
    other.call('queue_create', queue_name='orders')
    with (
        Intermediary(server.port, 'strip') as proxy,
        browser.console(proxy.url, project) as page,
    ):
        page.open('#/queues/orders')
        page.sees('Polling', '#connection')
        page.sees('JSON', '#connection')
        page.wait("document.querySelector('.live')?.dataset.state === 'live'")
        page.sees('Waiting for messages.')
        page.fill('Body', '"polled"')
        page.press('Post')
        page.sees('polled', '.messages')
        post(other, 'orders', 'from another')
        page.sees('from another', '.messages')
        assert page.complaints == []


def test_a_connection_that_dies_loses_nothing_and_doubles_nothing(
    browser: WatchedChromium, server: ServerProcess
) -> None:
    project = uuid.uuid4().hex
    other = client_of(server.url, project)
    other.call('queue_create', queue_name='orders')
    with Intermediary(server.port) as proxy, browser.console(proxy.url, project) as page:
        open_tail(page, 'orders')
        post(other, 'orders', 'one')
        page.sees('one', '.messages')
        proxy.cut_all()
        post(other, 'orders', 'two', 'three')
        page.sees('three', '.messages')
        page.sees('3 received')
        assert page.evaluate("document.querySelectorAll('.message').length") == 3
        page.sees('WebSocket', '#connection')
        assert page.complaints == []


def test_a_server_that_is_away_is_told_of_and_found_again(
    browser: WatchedChromium, tmp_path: pathlib.Path
) -> None:
    with (
        ServerProcess(tmp_path) as server,
        Intermediary(server.port) as proxy,
        browser.console(proxy.url) as page,
    ):
        page.open()
        page.sees('has no queues yet')
        server.stop()
        page.sees('The server does not answer.', '#banner')
        page.sees('Connecting', '#connection')
        server.start()
        proxy.target = server.port
        page.wait("document.getElementById('connection').dataset.state === 'websocket'", 40)
        assert page.text('#banner') == ''
        assert page.complaints == []


def test_the_encoding_can_be_switched(page: ConsolePage) -> None:
    difference = Difference(page.url)

    def open_in(encoding: str) -> float:
        kind = {'engine': 'websockets', 'protocol': 'zaqar.v2', 'encoding': encoding}
        return difference.of('websocket_connections', **kind)

    page.open()
    page.sees('MsgPack', '#connection')
    eventually(lambda: open_in('msgpack'), 1)
    page.evaluate("document.getElementById('connection').click()")
    page.choose('Encoding', 'json')
    page.press('Connect')
    page.sees('JSON', '#connection')
    eventually(lambda: open_in('json'), 1)
    eventually(lambda: open_in('msgpack'), 0)
    page.command('Page.reload')
    page.sees('JSON', '#connection')


def test_everything_can_be_done_by_keyboard(page: ConsolePage, other: RestCaller) -> None:
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
    post(other, 'orders', 'second')
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


def test_what_has_the_focus_can_be_seen(page: ConsolePage, other: RestCaller) -> None:
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


def test_hostile_bodies_are_texts(page: ConsolePage, other: RestCaller) -> None:
    post(other, 'orders', *HOSTILE)
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
def test_odd_names_are_names(page: ConsolePage, other: RestCaller, name: str) -> None:
    page.open()
    page.press('New queue')
    page.fill('Name', name)
    page.press('Create')
    if name == '%41':
        page.sees('(400)', 'dialog')
        return
    page.wait(f'document.querySelector("h1").textContent === {json.dumps(name)}')
    page.sees('Waiting for messages.')
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


def test_hostile_names_from_the_server_are_texts(page: ConsolePage, other: RestCaller) -> None:
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


def test_what_is_stored_in_the_browser_may_be_anything(page: ConsolePage) -> None:
    page.open()
    for stored in (
        'not JSON',
        '[]',
        'null',
        '{"project": {"a": 1}, "transport": "carrier pigeon"}',
    ):
        page.evaluate(f"void (localStorage['zaqar-console'] = {json.dumps(stored)})")
        page.command('Page.reload')
        page.sees('The project “demo”')
        page.sees('WebSocket', '#connection')


def test_phone_width_needs_no_horizontal_scrolling(page: ConsolePage, other: RestCaller) -> None:
    long = 'a-name-that-is-as-long-as-a-name-can-be.' + 'x' * 24
    post(other, long, *HOSTILE)
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


def test_nothing_moves_for_those_who_do_not_want_it(page: ConsolePage, other: RestCaller) -> None:
    other.call('queue_create', queue_name='orders')
    moving = 'document.getAnimations().length'
    open_tail(page, 'orders')
    assert page.evaluate(moving) > 0
    page.prefer(reduced_motion='reduce')
    open_tail(page, 'orders')
    post(other, 'orders', 1)
    page.fill('Body', '2')
    page.press('Post')
    page.sees('Posted.')
    assert page.evaluate(moving) == 0


def test_a_client_id_is_a_uuid(page: ConsolePage) -> None:
    page.open()
    page.sees('has no queues yet')
    before = page.evaluate("JSON.parse(localStorage['zaqar-console']).clientId")
    page.evaluate("document.getElementById('connection').click()")
    page.fill('Client-ID', 'no UUID')
    page.press('Connect')
    page.sees('A UUID is wanted', 'dialog')
    page.press('New')
    page.press('Connect')
    page.wait("!document.querySelector('dialog')")
    page.sees('has no queues yet')
    after = page.evaluate("JSON.parse(localStorage['zaqar-console']).clientId")
    assert str(uuid.UUID(after)) == after != before


QUEUES = 10_000
ROWS = 40


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


PACE = 1000
FLOOD_SECONDS = 5
BATCH = 50


def test_a_tail_of_a_thousand_messages_a_second_is_followed_at_ease(
    page: ConsolePage, server: ServerProcess
) -> None:
    """In bounded many elements, with the page at hand all the while, and none left out."""
    with Client(server.url, project=page.project) as client:
        client.queue('flood').create()
        open_tail(page, 'flood')
        page.evaluate(_MEASURE_FRAMES)
        began = time.monotonic()
        for number in range(0, PACE * FLOOD_SECONDS, BATCH):
            client.queue('flood').post([{'n': number + one} for one in range(BATCH)], ttl=600)
            time.sleep(max(0, began + (number + BATCH) / PACE - time.monotonic()))
        spent = time.monotonic() - began
    page.sees(f'{PACE * FLOOD_SECONDS:,} received, the latest 200 shown', seconds=5)
    longest, frames, most = page.evaluate('measured')
    print(f'{spent:.1f} s: {frames} frames, at most {longest:.0f} ms apart, {most} messages shown')
    assert most <= 200
    assert longest < 500
    assert frames > 5 * FLOOD_SECONDS
    last = PACE * FLOOD_SECONDS - 1
    assert f'{{"n":{last}}}' in page.text('.message-line')
    shown = page.evaluate(
        "[...document.querySelectorAll('.message-body')].map((one) => one.textContent)"
    )
    assert shown == [f'{{"n":{last - one}}}' for one in range(200)]


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


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_axe_finds_nothing_serious(page: ConsolePage, other: RestCaller, scheme: str) -> None:
    script = os.environ.get('AXE_CORE')
    if script is None:
        pytest.skip('AXE_CORE does not say where axe-core is')
    page.prefer(color_scheme=scheme)
    post(other, 'orders', {'n': 1}, 'two')
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


TABS = ('', '/claims', '/subscriptions', '/metadata')


def assert_accessible(page: ConsolePage, script: str, place: str) -> None:
    page.evaluate(pathlib.Path(script).read_text())
    found = page.evaluate('axe.run().then(({ violations }) => violations)')
    serious = [
        (place, one['id'], [node['html'][:200] for node in one['nodes']])
        for one in found
        if one['impact'] in ('serious', 'critical')
    ]
    assert serious == []


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
