"""Webhooks that are silent, slow, endless or wrong: only their own subscription is affected."""

from __future__ import annotations

import json
import pathlib
import sqlite3
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from tests.callers import Answer, RestCaller
from tests.faults.conftest import LOGGING
from tests.faults.light_load import PROMPT, LightLoad
from tests.faults.memory import MB, Peak, settled
from tests.receivers import Receivers
from tests.server_process import ServerProcess

SECONDS = 4
EACH_SECONDS = 0.05
TOLD_WITHIN = 5.0
GROWTH = 20 * MB
CONFIG = (
    f'{LOGGING}[drivers:transport:gevent]\nsubscription_cache_seconds = 0\nwebhook_timeout = 3\n'
)
AT_ONCE = {
    'retries_with_no_delay': 100,
    'minimum_delay_retries': 100,
    'minimum_delay': 0,
    'maximum_delay': 10,
    'maximum_delay_retries': 100,
}


class Others:
    """A webhook of another project, and a light load of REST, while something is wrong."""

    def __init__(self, server: ServerProcess, receivers: Receivers, store: pathlib.Path) -> None:
        self.server, self.receivers, self.store = server, receivers, store
        self.attacker = RestCaller(server.url)
        self._caller = RestCaller(server.url)
        self._path = f'prompt/{self._caller.identity.project_id}'
        subscribe(self._caller, receivers.url(self._path))
        post(self._caller, 'first')
        receivers.wait_for(1, self._path)
        self._before = settled(server.pid)
        self._peak = Peak(server.pid)

    def go_on(self, seconds: float = SECONDS) -> None:
        """Post for a while, and check that nothing of it was delayed and little memory is used."""
        count = round(seconds / EACH_SECONDS)
        with LightLoad(self.server.port) as load:
            for _ in range(count):
                post(self._caller, 'x')
                time.sleep(EACH_SECONDS)
        received = self.receivers.wait_for(count + 1, self._path)
        latencies = sorted(each.at - each.document['body']['posted_at'] for each in received)
        p99 = latencies[len(latencies) * 99 // 100]
        after = settled(self.server.pid) - self._before
        print(
            f'others are told: p99 {p99 * 1000:.1f} ms; the server has grown by '
            f'{self._peak.growth / MB:.1f} MB, {after / MB:.1f} MB after'
        )
        assert load.statuses == {204}
        assert load.p99 < PROMPT
        assert p99 < TOLD_WITHIN
        assert self._peak.growth < GROWTH

    def store_options(self, target: dict[str, str], options: dict[str, Any]) -> None:
        """Put options into the store that no server would have taken, as an older one may have."""
        with sqlite3.connect(self.store) as connection:
            changed = connection.execute(
                'UPDATE subscriptions SET options = ? WHERE id = ?',
                (json.dumps(options), int(target['subscription_id'], 16)),
            )
            assert changed.rowcount == 1
        connection.close()


@pytest.fixture
def others(tmp_path: pathlib.Path) -> Iterator[Others]:
    with Receivers() as receivers, ServerProcess(tmp_path, config=_config(tmp_path)) as server:
        yield Others(server, receivers, tmp_path / 'z.sqlite')
        assert server.stop() == 0
        assert 'Traceback' not in '\n'.join(server.output)


def _config(state: pathlib.Path) -> str:
    return (
        '[drivers]\nmessage_store = sqlite\nmanagement_store = sqlite\n'
        f'[drivers:message_store:sqlite]\nuri = sqlite:///{state}/z.sqlite\n'
        f'[drivers:management_store:sqlite]\nuri = sqlite:///{state}/z.sqlite\n'
        f'[storage]\nmessage_pipeline = zaqar.notification.notifier\n{CONFIG}'
    )


def subscribe(caller: RestCaller, subscriber: str, **options: Any) -> dict[str, str]:
    answer = caller.call(
        'subscription_create', queue_name='q', subscriber=subscriber, options=options
    )
    assert answer.status == 201, answer
    return {'queue_name': 'q', 'subscription_id': answer.body['subscription_id']}


def post(caller: RestCaller, text: str, count: int = 1) -> Answer:
    body = {'posted_at': time.monotonic(), 'text': text}
    answer = caller.call('message_post', queue_name='q', messages=[{'body': body}] * count)
    assert answer.status == 201
    return answer


def state_of(caller: RestCaller, target: dict[str, str]) -> dict[str, Any]:
    headers = {**caller.identity.headers(), 'OpenStack-API-Version': 'messaging 2.1'}
    found: dict[str, Any] = caller.call('subscription_get', headers=headers, **target).body
    return found.get('delivery', {})


@pytest.mark.parametrize(
    'kind', ['silent', 'slow', 'garbage', 'endless', 'heads', 'line', 'proceed', 'drip', 'hangup']
)
def test_a_subscriber_that_does_not_behave_delays_only_itself(others: Others, kind: str) -> None:
    targets = [
        subscribe(others.attacker, others.receivers.url(f'{kind}/{number}')) for number in range(20)
    ]
    post(others.attacker, 'x', count=5)
    others.go_on()
    state = state_of(others.attacker, targets[0])
    if kind in ('slow', 'endless', 'heads'):
        # Their status is success.
        assert state['last_success'] is not None
    else:
        assert state['last_failure'] is not None


def test_a_thousand_silent_subscribers_of_one_project(others: Others) -> None:
    """Those of its own project that answer are told as promptly as others'."""
    good = subscribe(others.attacker, others.receivers.url('prompt/own'))
    post(others.attacker, 'first')
    others.receivers.wait_for(1, 'prompt/own')
    for number in range(1000):
        subscribe(others.attacker, others.receivers.url(f'silent/{number}'))
    post(others.attacker, 'second')
    [_, second] = others.receivers.wait_for(2, 'prompt/own')
    assert second.at - second.document['body']['posted_at'] < TOLD_WITHIN
    others.go_on(5)
    assert state_of(others.attacker, good)['waiting'] == 0


def test_a_backlog_is_bounded_and_says_what_it_dropped(others: Others) -> None:
    target = subscribe(others.attacker, others.receivers.url('silent/1'))
    for _ in range(150):
        post(others.attacker, 'x' * 1000, count=20)
    state = state_of(others.attacker, target)
    assert state['waiting'] == 1000
    assert state['dropped'] == 2000
    others.go_on(1)
    # It is said at once, and then at most every ten seconds.
    lines = [line for line in others.server.output if 'tries failed' in line]
    assert 1 <= len(lines) <= 3
    assert ' backlog' in ''.join(lines)
    assert target['subscription_id'] in lines[0]
    assert 'xxx' not in '\n'.join(others.server.output)


@pytest.mark.parametrize('function', ['linear', 'arithmetic', 'geometric', 'exponential'])
def test_an_absurd_retry_policy_that_is_stored_costs_nothing(others: Others, function: str) -> None:
    target = subscribe(others.attacker, others.receivers.url('hangup/1'))
    policy = {
        'retries_with_no_delay': 10**9,
        'minimum_delay_retries': 10**9,
        'minimum_delay': 1,
        'maximum_delay': 400_000_000,
        'maximum_delay_retries': 10**9,
        'retry_backoff_function': function,
    }
    others.store_options(target, {'_retry_policy': policy})
    began = time.monotonic()
    post(others.attacker, 'x')
    others.go_on()
    tries = len(others.receivers.look()['hangup/1'])
    # A hundred at once and then one a second; a kept connection may have been tried first.
    assert 1 < tries <= 103 + (time.monotonic() - began)


def test_subscribers_that_are_tried_again_at_once_cost_little(others: Others) -> None:
    for number in range(20):
        url = others.receivers.url(f'status/500//{number}')
        subscribe(others.attacker, url, _retry_policy=AT_ONCE)
    post(others.attacker, 'x', count=5)
    others.go_on()


def test_a_stored_template_with_thousands_of_messages_is_not_filled_in(others: Others) -> None:
    target = subscribe(others.attacker, others.receivers.url('prompt/template'))
    others.store_options(target, {'post_data': '"$zaqar_message$"' * 12_000})
    post(others.attacker, 'x' * 200_000)
    others.go_on(1)
    assert '$zaqar_message$' in state_of(others.attacker, target)['last_failure']['reason']
    assert 'prompt/template' not in others.receivers.look()


def test_large_messages_in_templates_that_nobody_reads_take_no_memory(others: Others) -> None:
    for number in range(50):
        url = others.receivers.url(f'deaf/{number}')
        subscribe(others.attacker, url, post_data='"$zaqar_message$"' * 10)
    post(others.attacker, 'x' * 200_000)
    others.go_on()


def test_a_loop_ends_at_once(others: Others) -> None:
    headers = others.attacker.identity.headers()
    for number in range(20):
        subscribe(
            others.attacker,
            f'{others.server.url}/v2/queues/q/messages?{number}',
            post_data='{"messages": [{"body": "$zaqar_message$", "ttl": 60}]}',
            post_headers=headers,
        )
    before = processor_seconds(others.server.pid)
    post(others.attacker, 'x')
    others.go_on()
    stats = others.attacker.call('queue_get_stats', queue_name='q')
    assert stats.body['messages']['total'] == 1
    assert processor_seconds(others.server.pid) - before < SECONDS / 2


def test_names_that_cannot_be_looked_up_delay_nobody(others: Others) -> None:
    for number in range(100):
        subscribe(others.attacker, f'http://name{number}.invalid/')
    post(others.attacker, 'x', count=3)
    others.go_on()


def processor_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)
