"""What the embedded store acknowledged survives a power cut, whenever it comes.

Writes and syncs of a store at work are recorded; at many points of the recording the disk is
rebuilt as it may be after a power cut there, and opened.
"""

from __future__ import annotations

import json
import os
import pathlib
import random
import shutil
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from tests.faults import recording
from tests.faults.power_cut import Disk
from tests.unit.storage.conftest import Store
from zaqar_gevent.storage.errors import StoreUnavailable


@pytest.fixture(scope='module', autouse=True)
def _tracing() -> None:
    """These tests can trace programs; in CI they must."""
    reason = recording.why_not()
    if reason is not None:
        if os.environ.get('CI'):
            pytest.fail(reason)
        pytest.skip(reason)


WORKER = """
import json, os, pathlib, random, sys, uuid
from gevent import monkey
monkey.patch_all()
import gevent
from oslo_config import cfg
from zaqar_gevent import conf as configuration
from zaqar_gevent.storage.sqlite import connecting, staging
# So that there are many checkpoints, and the journal begins anew as often.
connecting.CHECKPOINT_PAGES = 30
from zaqar_gevent.storage.sqlite import ControlDriver, DataDriver
from zaqar_gevent.storage.sqlite.database import Database
staging.STAGED_BYTES = staging.PIECE_BYTES = 4000

state, told, name, rounds, lives, processes = sys.argv[1:]
output = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
chance = random.Random(name)

def tell(**what):
    os.write(output, (json.dumps(what) + '\\n').encode())

def work(number, life, data):
    messages, claims = data.message_controller, data.claim_controller
    queue, kept = f'q{number % 2}', []
    for turn in range(int(rounds)):
        sizes = [chance.randint(0, 900) for part in range(chance.randint(1, 3))]
        if turn % 6 == number:
            sizes[-1] += 9000
        bodies = [f'{name}-{life}-{number}-{turn}-{part}' + 'x' * size
                  for part, size in enumerate(sizes)]
        tell(posting=bodies)
        ids = messages.post(queue, [{'ttl': 3600, 'body': body} for body in bodies], None)
        tell(posted=dict(zip(ids, bodies)), queue=queue)
        kept += ids
        if turn % 3 == 1:
            token, found = claims.create(queue, {'ttl': 3600, 'grace': 60}, limit=2)
            found = [message['id'] for message in found]
            tell(claimed=found, token=token, queue=queue)
            for one in found[:1]:
                tell(deleting=one)
                messages.delete(queue, one, claim=token)
                tell(deleted=one)

for life in range(int(lives)):
    if life:
        # Then nothing syncs the pieces of a body before the commit of its message.
        Database.sync_log = lambda database: None
    conf = configuration.load(cfg.ConfigOpts(), [])
    configuration.use_embedded_store(conf, pathlib.Path(state))
    control = ControlDriver(conf, None)
    data = DataDriver(conf, None, control)
    for queue in ('q0', 'q1'):
        data.queue_controller.create(queue)
    tell(opened=life)
    # So that all write at the same time.
    while pathlib.Path(told).read_bytes().count(b'"opened"') < int(processes) * (life + 1):
        gevent.sleep(0.01)
    gevent.joinall([gevent.spawn(work, number, life, data) for number in range(4)],
                   raise_error=True)
    data.close()
    control.close()
"""

TWO = """
import subprocess, sys
workers = [subprocess.Popen([sys.executable, sys.argv[1], *sys.argv[2:4], name, *sys.argv[4:]])
           for name in ('one', 'two')]
sys.exit(max(worker.wait() for worker in workers))
"""

STATE = ('new', 'state')
"""Directories that the store makes, below one that exists."""


class Recording:
    """A store at work: what it did to its files, and what it told of its doings meanwhile."""

    def __init__(self, directory: pathlib.Path, *, processes: int, rounds: int, lives: int) -> None:
        self.root = directory / 'disk'
        self.root.mkdir()
        self._told = str(self.root / 'told')
        program, pair = directory / 'worker.py', directory / 'pair.py'
        program.write_text(WORKER)
        pair.write_text(TWO)
        state = self.root.joinpath(*STATE)
        command = [sys.executable, str(program), str(state), self._told, 'one']
        if processes == 2:
            command = [sys.executable, str(pair), str(program), str(state), self._told]
        command += [str(rounds), str(lives), str(processes)]
        self.operations = recording.record(command, directory / 'trace', self.root)

    def replay(self, points: Sequence[int]) -> Iterator[tuple[Disk, Expectation]]:
        """The disk and what is to be expected of it, at each of some points."""
        disk, expected = Disk(self.root), Expectation()
        wanted = set(points)
        for number, operation in enumerate(self.operations):
            if operation.path == self._told:
                if operation.kind == 'write':
                    expected.note(json.loads(operation.data))
            else:
                disk.do(number, operation)
            if number in wanted:
                yield disk, expected

    def posts_of_long_bodies(self) -> list[int]:
        """After which operations a body in pieces had just been acknowledged."""
        told = (
            (number, json.loads(operation.data))
            for number, operation in enumerate(self.operations)
            if operation.path == self._told and operation.kind == 'write'
        )
        return [
            number
            for number, what in told
            if any(len(body) > 9000 for body in what.get('posted', {}).values())
        ]

    def count(self, kind: str, name: str) -> int:
        return sum(each.kind == kind and each.path.endswith(name) for each in self.operations)


class Expectation:
    """What has been acknowledged so far, and what was being done."""

    def __init__(self) -> None:
        self.posting: list[list[str]] = []
        self.posted: dict[str, tuple[str, str]] = {}
        self.claimed: dict[str, tuple[str, list[str]]] = {}
        self.deleting: set[str] = set()
        self.deleted: set[str] = set()

    def note(self, told: dict[str, Any]) -> None:
        match told:
            case {'posting': bodies}:
                self.posting.append(bodies)
            case {'posted': posted, 'queue': queue}:
                self.posted |= {key: (queue, body) for key, body in posted.items()}
            case {'claimed': ids, 'token': token, 'queue': queue}:
                if token:
                    self.claimed[token] = queue, ids
            case {'deleting': one}:
                self.deleting.add(one)
            case {'deleted': one}:
                self.deleted.add(one)

    def check(self, directory: pathlib.Path) -> None:
        """Open the store that a power cut left in `directory`, and look at what it has."""
        if not (directory / 'zaqar.sqlite').exists():
            assert self.posted == {}, 'the file has not survived'
            return
        store = Store(directory, messages='zaqar.sqlite', names='zaqar.sqlite')
        try:
            self._check_messages(
                {queue: store.list(queue, limit=0, include_claimed=True) for queue in ('q0', 'q1')}
            )
            self._check_claims(store)
            store.post('after the power cut')
        finally:
            store.close()
        connection = sqlite3.connect(directory / 'zaqar.sqlite')
        assert connection.execute('PRAGMA integrity_check').fetchall() == [('ok',)]
        connection.close()

    def _check_messages(self, listed: dict[str, list[Any]]) -> None:
        found = {
            message['id']: (queue, message['body'])
            for queue, messages in listed.items()
            for message in messages
        }
        for key, posted in self.posted.items():
            if key not in self.deleting:
                assert found.get(key) == posted, f'the message {key} was acknowledged'
        assert not self.deleted & found.keys(), 'a deleted message is back'
        self._check_posts({body for _, body in found.values()})
        for messages in listed.values():
            ids = [message['id'] for message in messages]
            assert ids == sorted(set(ids))
            _check_order([message['body'] for message in messages])

    def _check_posts(self, found: set[str]) -> None:
        """Each post is there with all of its messages or with none."""
        gone = {self.posted[key][1] for key in self.deleting}
        for bodies in self.posting:
            there = [body in found for body in bodies if body not in gone]
            assert all(there) or not any(there), f'the post of {bodies[0]} is torn'
        assert found <= {body for bodies in self.posting for body in bodies}

    def _check_claims(self, store: Store) -> None:
        for token, (queue, ids) in self.claimed.items():
            _, held = store.claims.get(queue, token)
            assert {message['id'] for message in held} >= set(ids) - self.deleting


def _check_order(bodies: list[str]) -> None:
    """What one poster has posted is in the order in which it did."""
    last: dict[str, tuple[int, int]] = {}
    for body in bodies:
        name, life, poster, turn, part = body.rstrip('x').split('-')
        place = int(turn), int(part)
        assert place > last.get(f'{name}-{life}-{poster}', (-1, -1))
        last[f'{name}-{life}-{poster}'] = place


def cut(directory: pathlib.Path, made: Recording, *, points: int, seed: int) -> int:
    """Cut the power at `points` points, and twice at each; returns how often.

    Those at which a long body has just been acknowledged are among them, as far as they are few.
    """
    print(f'seed {seed}')
    chance = random.Random(seed)
    count = len(made.operations)
    long = made.posts_of_long_bodies()[: points // 4]
    others = [number for number in range(count) if number not in long]
    chosen = sorted(long + chance.sample(others, min(points - len(long), len(others))))
    images = 0
    for disk, expected in made.replay(chosen):
        for survivors in (None, random.Random(chance.random())):
            image = directory / 'image'
            image.mkdir()
            disk.write_image(image, survivors)
            expected.check(image.joinpath(*STATE))
            shutil.rmtree(image)
            images += 1
    return images


@pytest.fixture(scope='module')
def alone(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """One process, which opens a new file, closes it, and opens it again."""
    return Recording(tmp_path_factory.mktemp('alone'), processes=1, rounds=12, lives=2)


@pytest.fixture(scope='module')
def together(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Two processes at once on a new file."""
    return Recording(tmp_path_factory.mktemp('together'), processes=2, rounds=12, lives=1)


def test_the_recordings_have_what_matters_in_them(alone: Recording, together: Recording) -> None:
    for made in (alone, together):
        assert not [each for each in made.operations if each.kind.startswith('unknown')]
        assert made.count('mkdir', 'state') == 1
        assert made.count('sync', '/new') >= 1
        assert made.count('sync', '-wal') > 20
        # Checkpoints write to the file, and the journal begins anew with a head of its own.
        assert made.count('sync', 'zaqar.sqlite') > 3
        assert made.posts_of_long_bodies()
        heads = [
            each
            for each in made.operations
            if each.kind == 'write' and each.path.endswith('-wal') and each.offset == 0
        ]
        assert len(heads) > 2
    # Of a store that was closed, a new journal follows.
    assert alone.count('unlink', '-wal') >= 2


@pytest.mark.parametrize('name', ['alone', 'together'])
def test_what_was_acknowledged_survives(
    request: pytest.FixtureRequest, tmp_path: pathlib.Path, name: str
) -> None:
    made = request.getfixturevalue(name)
    assert cut(tmp_path, made, points=100, seed=random.SystemRandom().getrandbits(32)) == 200


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(('processes', 'lives'), [(1, 3), (2, 1)], ids=['alone', 'together'])
def test_what_was_acknowledged_survives_wherever_it_is_cut(
    tmp_path: pathlib.Path, processes: int, lives: int
) -> None:
    made = Recording(tmp_path, processes=processes, rounds=40, lives=lives)
    images = tmp_path / 'images'
    images.mkdir()
    seed = random.SystemRandom().getrandbits(32)
    assert cut(images, made, points=1500, seed=seed) == 3000


@pytest.mark.parametrize('name', ['zaqar.sqlite-wal', '/state', '/new'])
def test_a_store_that_does_not_sync_is_found_out(
    alone: Recording, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Of the replay itself: it does not pass whatever happens.

    Messages are lost, or the file is damaged so that it cannot even be opened.
    """
    unsynced = [
        each._replace(kind='begin') if each.kind == 'sync' and each.path.endswith(name) else each
        for each in alone.operations
    ]
    monkeypatch.setattr(alone, 'operations', unsynced)
    with pytest.raises((AssertionError, StoreUnavailable)):
        cut(tmp_path, alone, points=500, seed=1)
