"""Many webhooks of many projects, some of which fail: the others are told all, in order, soon."""

from __future__ import annotations

import itertools
import pathlib
import time
from collections.abc import Iterator

import psutil
import pytest

from tests.callers import RestCaller, new_identity
from tests.faults.light_load import LightLoad
from tests.faults.memory import MB, Peak, settled
from tests.receivers import Receivers
from tests.server_process import ServerProcess

PROJECTS = 20
WEBHOOKS_EACH = 10
POSTS_PER_SECOND = 100
SECONDS = 60
PROMPT_KINDS = 7
KINDS = ('silent', 'slow', 'garbage', *['prompt'] * PROMPT_KINDS)

TOLD_WITHIN = 1.0
OTHERS_WITHIN = 0.01
GROWTH = 30 * MB


@pytest.fixture
def server(tmp_path: pathlib.Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path) as server:
        yield server


@pytest.fixture
def receivers() -> Iterator[Receivers]:
    with Receivers() as receivers:
        yield receivers


class Posting:
    """So many posts a second, to each project in turn; each message says when it was posted."""

    def __init__(self, server: ServerProcess) -> None:
        self.identities = [new_identity() for _ in range(PROJECTS)]
        self._callers = [RestCaller(server.url, identity=each) for each in self.identities]
        self.durations: list[float] = []
        self.posted = dict.fromkeys(self.identities, 0)

    def subscribe(self, receivers: Receivers) -> list[str]:
        """Ten webhooks of each project; the paths of those that answer."""
        prompt = []
        for caller in self._callers:
            for number, kind in enumerate(KINDS):
                path = f'{kind}/{caller.identity.project_id}/{number}'
                answer = caller.call(
                    'subscription_create', queue_name='q', subscriber=receivers.url(path)
                )
                assert answer.status == 201
                prompt += [path] if kind == 'prompt' else []
        return prompt

    def post(self, seconds: float) -> None:
        began = time.monotonic()
        for number, caller in enumerate(itertools.cycle(self._callers)):
            due = began + number / POSTS_PER_SECOND
            if due > began + seconds:
                break
            time.sleep(max(0.0, due - time.monotonic()))
            body = {'posted_at': time.monotonic(), 'seq': self.posted[caller.identity]}
            answer = caller.call('message_post', queue_name='q', messages=[{'body': body}])
            self.durations.append(time.monotonic() - body['posted_at'])
            assert answer.status == 201
            self.posted[caller.identity] += 1

    def p99(self) -> float:
        durations = sorted(self.durations)
        self.durations = []
        return durations[len(durations) * 99 // 100]


def processor_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_healthy_webhook_is_told_of_every_message_in_order(
    server: ServerProcess, receivers: Receivers
) -> None:
    posting = Posting(server)
    posting.post(2)
    posting.p99()
    used = processor_seconds(server.pid)
    with LightLoad(server.port) as without:
        posting.post(SECONDS / 3)
    p99_without = posting.p99()
    print(f'server {(processor_seconds(server.pid) - used) / (SECONDS / 3):.2f} of a processor')
    before = settled(server.pid)
    prompt = posting.subscribe(receivers)
    first = dict(posting.posted)
    peak = Peak(server.pid)
    used = processor_seconds(server.pid)
    with LightLoad(server.port) as beside:
        posting.post(SECONDS)
    used = processor_seconds(server.pid) - used
    p99_beside = posting.p99()
    received = receivers.look()
    latencies: list[float] = []
    for path in prompt:
        identity = next(each for each in posting.identities if each.project_id in path)
        seqs = [each.document['body']['seq'] for each in received[path]]
        assert seqs == list(range(first[identity], posting.posted[identity]))
        latencies += [each.latency for each in received[path]]
    p99 = sorted(latencies)[len(latencies) * 99 // 100]
    tried = sum(map(len, received.values()))
    print(
        f'{tried / SECONDS:.0f} requests a second, of the prompt {len(latencies)}: '
        f'p50 {sorted(latencies)[len(latencies) // 2] * 1000:.1f}, p99 {p99 * 1000:.1f}, longest '
        f'{max(latencies) * 1000:.1f} ms; server {used / SECONDS:.2f} of a processor, grown by '
        f'{peak.growth / MB:.1f} MB, {(settled(server.pid) - before) / MB:.1f} MB after'
    )
    print(f'posts: p99 {p99_without * 1000:.1f} without, {p99_beside * 1000:.1f} ms beside')
    print(f'others: {without} without; {beside} beside')
    assert p99 < TOLD_WITHIN
    assert beside.statuses == {204}
    assert beside.p99 < OTHERS_WITHIN
    assert peak.growth < GROWTH
