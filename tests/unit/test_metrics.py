"""What is counted, and how Prometheus reads it."""

from __future__ import annotations

import os
import pathlib
import re
import runpy
import subprocess
import sys
from typing import Any, get_args

import pytest
from prometheus_client import CollectorRegistry, multiprocess
from prometheus_client import Histogram as StandardHistogram
from prometheus_client.parser import text_string_to_metric_families

from tests.exposition import read, value_in
from zaqar_gevent import metrics
from zaqar_gevent.metrics import ConnectionKind, Histogram

ROOT = pathlib.Path(__file__).parents[2]
GUNICORN_SAMPLE = ROOT / 'etc' / 'gunicorn.conf.py'
OPERATORS = (ROOT / 'docs' / 'operators.md').read_text(encoding='utf-8')
MANY_PROCESSES = 'PROMETHEUS_MULTIPROC_DIR'


def value(name: str, **labels: object) -> float:
    """A value as it is exposed now; 0 for one that is not there."""
    return value_in(read(metrics.expose('')[1].decode()), name, **labels)


def label_values(name: str, label: str) -> set[str]:
    """What a label is exposed with."""
    exposed = read(metrics.expose('')[1].decode())
    return {dict(labels)[label] for found, labels in exposed if found == f'zaqar_{name}'}


def test_a_request_is_counted_and_timed() -> None:
    labels = {'operation': 'queue_get', 'transport': 'zaqar.v2-json'}
    for status, seconds in ((200, 0.002), (200, 0.002), (403, 0.0625)):
        metrics.observe_request(**labels, status=status, seconds=seconds)
    assert value('requests_total', **labels, status=200) == 2
    assert value('requests_total', **labels, status=403) == 1
    assert value('request_duration_seconds_count', **labels) == 3
    assert value('request_duration_seconds_sum', **labels) == pytest.approx(0.0665)


def test_nothing_is_counted_twice() -> None:
    metrics.observe_request('ping_node', 'rest', 204, 0.001)
    metrics.RECEIVED[False].add(10)
    metrics.COMMIT_SIZES.append(3)
    metrics.flush()
    first = metrics.expose('')[1].decode()
    metrics.flush()
    second = metrics.expose('')[1].decode()
    ours = [line for line in first.splitlines() if line.startswith('zaqar_')]
    assert ours == [line for line in second.splitlines() if line.startswith('zaqar_')]


@pytest.mark.parametrize(
    ('seconds', 'bound'),
    [(0.0, '0.00025'), (0.00025, '0.00025'), (0.00026, '0.001'), (5.0, '5.0'), (5.01, '+Inf')],
)
def test_a_duration_is_in_the_first_bucket_that_holds_it(seconds: float, bound: str) -> None:
    operation = f'bucket_{seconds}'
    metrics.observe_request(operation, 'rest', 200, seconds)
    exposed = read(metrics.expose('')[1].decode())
    filled = {
        float(dict(labels)['le'])
        for (name, labels), count in exposed.items()
        if name == 'zaqar_request_duration_seconds_bucket'
        and ('operation', operation) in labels
        and count
    }
    assert min(filled) == float(bound)


LE = ('1.0', '2.0', '5.0', '+Inf')


def test_observations_added_together_are_as_those_made_one_by_one() -> None:
    observed = [0.5, 1.0, 1.5, 4.0, 9.0, 9.0]
    together, alone = CollectorRegistry(), CollectorRegistry()
    Histogram('h', 'Help.', buckets=(1, 2, 5), registry=together).add([2, 1, 1, 2], sum(observed))
    one_by_one = StandardHistogram('h', 'Help.', buckets=(1, 2, 5), registry=alone)
    for number in observed:
        one_by_one.observe(number)
    for name, labels in (('h_sum', {}), ('h_count', {}), *(('h_bucket', {'le': b}) for b in LE)):
        assert together.get_sample_value(name, labels) == alone.get_sample_value(name, labels)
        assert together.get_sample_value(name, labels) is not None


def test_a_connection_counts_once_and_under_its_latest_encoding() -> None:
    fresh = ConnectionKind('ws4py', 'zaqar.v2')
    assert fresh.encoding == 'none'
    kinds = [fresh._replace(encoding=encoding) for encoding in ('none', 'json', 'msgpack')]

    def counted() -> list[float]:
        return [value('websocket_connections', **kind._asdict()) for kind in kinds]

    metrics.move_connection(None, kinds[0])
    assert counted() == [1, 0, 0]
    metrics.move_connection(kinds[0], kinds[1])
    metrics.move_connection(kinds[1], kinds[2])
    assert counted() == [0, 0, 1]
    metrics.move_connection(kinds[2], None)
    assert counted() == [0, 0, 0]


@pytest.mark.parametrize('binary', [False, True])
@pytest.mark.parametrize('direction', ['in', 'out'])
def test_messages_and_their_bytes_are_counted(direction: str, binary: bool) -> None:
    labels = {'direction': direction, 'encoding': 'msgpack' if binary else 'json'}
    before = value('websocket_frames_total', **labels), value('websocket_bytes_total', **labels)
    traffic = (metrics.RECEIVED if direction == 'in' else metrics.SENT)[binary]
    traffic.add(100)
    traffic.add(0)
    after = value('websocket_frames_total', **labels), value('websocket_bytes_total', **labels)
    assert (after[0] - before[0], after[1] - before[1]) == (2, 100)


def test_whatever_codes_peers_choose_there_are_few_of_them() -> None:
    others = value('websocket_closes_total', code='other')
    for code in range(5000):
        metrics.count_close(code)
    codes = label_values('websocket_closes_total', 'code')
    assert codes == {*map(str, range(1000, 1016)), '4003', '4008', 'other'}
    assert value('websocket_closes_total', code='other') - others == 5000 - 18
    assert value('websocket_closes_total', code=1009) >= 1


def test_every_reason_of_a_refusal_is_there_from_the_start_and_no_other_can_be_added() -> None:
    reasons = set(get_args(metrics.Refusal))
    assert label_values('websocket_refusals_total', 'reason') == reasons
    before = value('websocket_refusals_total', reason='origin')
    metrics.count_refusal('origin')
    assert value('websocket_refusals_total', reason='origin') == before + 1
    with pytest.raises(KeyError):
        metrics.count_refusal('whim')  # type: ignore[arg-type]
    assert label_values('websocket_refusals_total', 'reason') == reasons


def test_pushes_are_counted_by_kind() -> None:
    before = value('pushes_total', kind='message')
    metrics.count_push('message')
    assert value('pushes_total', kind='message') == before + 1


def test_the_outbox_is_as_deep_as_it_was_last_said_to_be() -> None:
    for depth in ((5000, 7), (300, 2)):
        metrics.set_outbox_depth(*depth)
    assert (value('websocket_outbox_bytes'), value('websocket_outbox_messages')) == (300, 2)


def test_commits_are_counted_by_their_size() -> None:
    metrics.flush()
    names = ('count', 'sum')
    before = [value(f'store_commit_size_{name}') for name in names]
    metrics.COMMIT_SIZES.extend([1, 1, 3, 600])
    after = [value(f'store_commit_size_{name}') for name in names]
    assert [now - then for now, then in zip(after, before, strict=True)] == [4, 605]


def test_commits_that_nobody_reads_take_a_bounded_space() -> None:
    for _ in range(100_000):
        metrics.COMMIT_SIZES.append(1)
    assert len(metrics.COMMIT_SIZES) < 100_000
    metrics.COMMIT_SIZES.clear()


def test_the_commits_of_the_stores_thread_are_seen_under_gevent(tmp_path: pathlib.Path) -> None:
    script = """
from gevent import monkey
monkey.patch_all()
import sys
import gevent
from tests.unit.storage.conftest import Store
from zaqar_gevent import metrics
store = Store(sys.argv[1])
metrics.COMMIT_SIZES.clear()
gevent.joinall([gevent.spawn(store.post, n) for n in range(100)], raise_error=True)
store.close()
print(metrics.expose('')[1].decode())
"""
    exposed = read(run(script, str(tmp_path)))
    assert exposed['zaqar_store_commit_size_sum', frozenset()] == 100
    assert 1 <= exposed['zaqar_store_commit_size_count', frozenset()] < 50


OPENMETRICS = 'application/openmetrics-text'


@pytest.mark.parametrize(
    ('accept', 'content_type'),
    [
        ('', 'text/plain; version=0.0.4'),
        ('*/*', 'text/plain; version=0.0.4'),
        ('text/plain', 'text/plain; version=0.0.4'),
        (f'{OPENMETRICS};version=1.0.0,text/plain;q=0.5', f'{OPENMETRICS}; version=1.0.0'),
        (';;==,,', 'text/plain; version=0.0.4'),
    ],
)
def test_the_reader_chooses_the_format(accept: str, content_type: str) -> None:
    chosen, text = metrics.expose(accept)
    assert chosen.startswith(content_type)
    assert text.endswith(b'# EOF\n') == chosen.startswith(OPENMETRICS)
    assert b'zaqar_store_commit_size_count' in text


@pytest.mark.parametrize('version', ['new', '1.0.0-rc1', '1..', '-1', '9' * 5000])
@pytest.mark.parametrize('media_type', ['text/plain', OPENMETRICS])
def test_no_version_that_a_reader_asks_for_is_a_failure(media_type: str, version: str) -> None:
    _, text = metrics.expose(f'{media_type};version={version}')
    assert b'zaqar_store_commit_size_count' in text


def test_every_metric_is_zaqars_and_explained_or_of_the_process() -> None:
    families = list(text_string_to_metric_families(metrics.expose('')[1].decode()))
    names = {family.name for family in families if not family.name.endswith('_created')}
    assert {name for name in names if not name.startswith('zaqar_')} == {
        *('process_virtual_memory_bytes', 'process_resident_memory_bytes'),
        *('process_start_time_seconds', 'process_cpu_seconds', 'process_open_fds'),
        *('process_max_fds', 'python_gc_objects_collected', 'python_gc_objects_uncollectable'),
        'python_gc_collections',
    }
    assert all(family.documentation.endswith('.') for family in families if 'zaqar' in family.name)


def test_the_operators_are_told_of_every_metric_and_its_labels() -> None:
    exposed = read(run(COUNT + "count(); metrics.count_push('x'); " + SHOW))
    known: dict[str, set[str]] = {}
    for name, labels in exposed:
        if name.startswith('zaqar_') and not name.endswith('_created'):
            plain = re.sub(r'_(bucket|count|sum)$', '', name)
            known[plain] = {label for label, _ in labels} - {'le'}
    told: dict[str, set[str]] = {}
    for row in re.findall(r'^\| (`zaqar_.*)$', OPERATORS, flags=re.MULTILINE):
        names, allowed = (re.findall(r'`(\w+)`', cell) for cell in row.split('|')[:2])
        told.update({name: set(allowed) for name in names})
    assert told == known


COUNT = """
import os, sys
from zaqar_gevent import metrics
def count():
    metrics.observe_request('queue_list', 'rest', 200, 0.002)
    metrics.RECEIVED[True].add(50)
    metrics.COMMIT_SIZES.append(4)
    metrics.count_close(1000)
    metrics.set_outbox_depth(10, 1)
    metrics.move_connection(None, metrics.ConnectionKind('websockets', 'default'))
    metrics.observe_delivery('webhook', 'delivered', 0.01)
    metrics.count_undelivered('webhook', 'backlog', 2)
    metrics.set_delivery_depth('webhook', 1, 2, 3)
    metrics.set_webhook_connections(4)
    metrics.flush()
"""
SHOW = "print(metrics.expose('')[1].decode())"
COUNTERS = [
    ('zaqar_requests_total', {'operation': 'queue_list', 'transport': 'rest', 'status': '200'}),
    ('zaqar_request_duration_seconds_count', {'operation': 'queue_list', 'transport': 'rest'}),
    ('zaqar_websocket_frames_total', {'direction': 'in', 'encoding': 'msgpack'}),
    ('zaqar_websocket_closes_total', {'code': '1000'}),
    ('zaqar_store_commit_size_count', {}),
]
GAUGES = [
    (
        'zaqar_websocket_connections',
        {'engine': 'websockets', 'protocol': 'default', 'encoding': 'none'},
    ),
    ('zaqar_websocket_outbox_messages', {}),
]


def run(script: str, *arguments: str, **env: str) -> str:
    """What a script prints, in an interpreter of its own."""
    command = [sys.executable, '-c', script, *arguments]
    done = subprocess.run(
        command, env={**os.environ, **env}, check=True, capture_output=True, text=True, timeout=60
    )
    return done.stdout


def values(text: str, wanted: list[tuple[str, dict[str, str]]]) -> list[float]:
    exposed = read(text)
    return [exposed[name, frozenset(labels.items())] for name, labels in wanted]


def test_several_processes_are_added_up_and_a_dead_one_holds_no_connections(
    tmp_path: pathlib.Path,
) -> None:
    env = {MANY_PROCESSES: str(tmp_path)}
    pids = [run(COUNT + 'count(); print(os.getpid())', **env).strip() for _ in range(2)]
    text = run(COUNT + SHOW, **env)
    assert values(text, COUNTERS) == [2] * len(COUNTERS)
    assert values(text, GAUGES) == [2] * len(GAUGES)
    assert 'process_cpu_seconds' not in text
    bury = 'import sys; from prometheus_client.multiprocess import mark_process_dead as end; '
    run(bury + 'end(int(sys.argv[1]))', pids[0], **env)
    text = run(COUNT + SHOW, **env)
    assert values(text, COUNTERS) == [2] * len(COUNTERS)
    assert values(text, GAUGES) == [1] * len(GAUGES)


def test_a_forked_process_is_one_of_several(tmp_path: pathlib.Path) -> None:
    script = """
count()
child = os.fork()
if not child:
    count()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print(metrics.expose('')[1].decode())
"""
    text = run(COUNT + script, **{MANY_PROCESSES: str(tmp_path)})
    assert values(text, [*COUNTERS, *GAUGES]) == [2] * len(COUNTERS + GAUGES)


class Worker:
    """As much of gunicorn's as the hook needs."""

    def __init__(self, pid: int) -> None:
        self.pid = pid


@pytest.mark.parametrize('variable', [None, ''])
def test_the_sample_for_gunicorn_forgets_nobody_where_there_are_no_files(
    monkeypatch: pytest.MonkeyPatch, variable: str | None
) -> None:
    monkeypatch.delenv(MANY_PROCESSES, raising=False)
    if variable is not None:
        monkeypatch.setenv(MANY_PROCESSES, variable)
    forgotten: list[int] = []
    monkeypatch.setattr(multiprocess, 'mark_process_dead', forgotten.append)
    hook: Any = runpy.run_path(str(GUNICORN_SAMPLE))['child_exit']
    hook(None, Worker(1))
    assert forgotten == []
    monkeypatch.setenv(MANY_PROCESSES, 'somewhere')
    hook(None, Worker(1))
    assert forgotten == [1]


def test_the_sample_for_gunicorn_forgets_the_connections_of_a_dead_worker(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    for name in ('gauge_livesum_7.db', 'gauge_livesum_8.db', 'counter_7.db'):
        (tmp_path / name).touch()
    monkeypatch.setenv(MANY_PROCESSES, str(tmp_path))
    hook: Any = runpy.run_path(str(GUNICORN_SAMPLE))['child_exit']
    hook(None, Worker(7))
    assert {path.name for path in tmp_path.iterdir()} == {'gauge_livesum_8.db', 'counter_7.db'}
