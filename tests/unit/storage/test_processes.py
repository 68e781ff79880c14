"""Several processes on one file, some of them killed."""

import os
import signal
import subprocess
import sys
import time
from unittest import mock

import pytest
from oslo_utils import timeutils

POSTER = """
import os, sys, uuid
from gevent import monkey
monkey.patch_all()
import gevent
from tests.unit.storage.conftest import Store
store = Store(sys.argv[1])
name, count = sys.argv[2], int(sys.argv[3])
def work(worker):
    for number in range(count):
        body = f'{name}-{worker}-{number}'
        [message_id] = store.post(body)
        os.write(1, f'{message_id} {body}\\n'.encode())
gevent.joinall([gevent.spawn(work, worker) for worker in range(4)], raise_error=True)
store.close()
"""


def start_poster(directory, name, count):
    return subprocess.Popen(
        [sys.executable, '-c', POSTER, str(directory), name, str(count)], stdout=subprocess.PIPE
    )


def acknowledged(output):
    lines = [line for line in output.decode().splitlines(keepends=True) if line[-1] == '\n']
    return dict(line.split() for line in lines)


@pytest.mark.parametrize('patience', [0.05, 0.1, 0.2])
def test_what_a_killed_process_acknowledged_is_there(open_store, tmp_path, patience):
    store = open_store()
    child = start_poster(tmp_path, 'killed', 100_000)
    first = b''.join(child.stdout.readline() for _ in range(11))
    time.sleep(patience)
    os.kill(child.pid, signal.SIGKILL)
    rest, _ = child.communicate()
    told = acknowledged(first + rest)
    assert len(told) > 10
    kept = [(message['id'], message['body']) for message in store.list(limit=0)]
    assert len(dict(kept)) == len(kept)
    assert told.items() <= dict(kept).items()
    store.post('after')


def test_a_follower_sees_what_all_processes_post_once_and_in_order(open_store, tmp_path):
    store = open_store()
    children = [start_poster(tmp_path, name, 150) for name in ('one', 'two')]
    seen, marker = [], None
    deadline = time.monotonic() + 30
    while len(seen) < 1200 and time.monotonic() < deadline:
        results = store.messages.list('q', marker=marker, limit=50, echo=True)
        seen += [message['body'] for message in next(results)]
        marker = next(results) or marker
    for child in children:
        child.communicate()
        assert child.returncode == 0
    assert len(seen) == len(set(seen)) == 1200
    for name in ('one', 'two'):
        for worker in range(4):
            prefix = f'{name}-{worker}-'
            numbers = [int(body[len(prefix) :]) for body in seen if body.startswith(prefix)]
            assert numbers == list(range(150))


def test_a_reader_whose_clock_is_behind_misses_nothing(open_store):
    """Its clock may have been read before a message was posted that it is shown all the same."""
    store = open_store()
    now = timeutils.utcnow_ts(microsecond=True)
    with mock.patch('oslo_utils.timeutils.utcnow_ts', return_value=now + 1):
        store.post('posted')
    with mock.patch('oslo_utils.timeutils.utcnow_ts', return_value=now):
        [listed] = next(store.messages.list('q', echo=True))
    assert listed['body'] == 'posted'


REPEATER = """
import sys
from tests.unit.storage.conftest import Store
store = Store(sys.argv[1])
for number in range(200):
    messages = [{'ttl': 300, 'body': number, 'post_id': str(number)}]
    print(*store.messages.post('q', messages, None), flush=True)
store.close()
"""


def test_a_post_is_made_once_however_many_processes_repeat_it(open_store, tmp_path):
    store = open_store()
    command = [sys.executable, '-c', REPEATER, str(tmp_path)]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(3)]
    told = [child.communicate()[0] for child in children]
    assert len(set(told)) == 1
    assert store.bodies(limit=1000) == list(range(200))
