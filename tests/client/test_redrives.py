"""Redrives by the clients and the terminal."""

from __future__ import annotations

import asyncio
import json
import uuid

import pytest

from tests.client.commands import Shell
from tests.server_process import ServerProcess
from zaqar_gevent.client import Client, NotFound, Queue, Timeout, aio


def bury(zaqar: Client, *bodies: object) -> Queue:
    """Have messages of `jobs` in its dead letter queue, which is returned."""
    dead = zaqar.queue('dead')
    dead.create()
    jobs = zaqar.queue('jobs')
    jobs.configure({'_dead_letter_queue': 'dead'})
    jobs.post([*bodies])
    with jobs.claim(limit=20, ttl=300) as claim:
        for message in claim:
            message.reject('bad')
    return dead


def bodies(queue: Queue) -> list[object]:
    return [message.body for message in queue.messages()]


def test_the_client_begins_waits_and_lists(server: ServerProcess) -> None:
    project = uuid.uuid4().hex
    with Client(server.url, project=project) as zaqar:
        dead = bury(zaqar, 1, 2, 3, 4, 5)
        redrive = dead.redrive(limit=2)
        assert redrive.wait(timeout=60) is redrive
        assert (redrive.state, redrive.moved, redrive.left) == ('finished', 2, 0)
        assert redrive.is_over
        assert redrive.ended is not None
        assert bodies(zaqar.queue('jobs')) == [1, 2]
        other = dead.redrive(target='else', rate=0.01)
        with pytest.raises(Timeout):
            dead.redrive(rate=0.01, target='third', limit=1000).wait(timeout=0)
        other.cancel()
        assert other.state == 'cancelled'
        assert [one.id for one in dead.redrives(limit=1)][:2] == [redrive.id, other.id]
        with pytest.raises(NotFound):
            dead.get_redrive('0' * 16)


def test_the_asyncio_client_waits(server: ServerProcess) -> None:
    project = uuid.uuid4().hex
    with Client(server.url, project=project) as zaqar:
        bury(zaqar, 1)

    async def redrive() -> str:
        async with aio.Client(server.url, project=project) as client:
            begun = await client.queue('dead').redrive()
            return (await begun.wait(timeout=60)).state

    assert asyncio.run(redrive()) == 'finished'


def test_the_terminal_moves_lists_shows_and_cancels(shell: Shell) -> None:
    with Client(shell.env['ZAQAR_URL'], project=shell.env['ZAQAR_PROJECT']) as zaqar:
        dead = bury(zaqar, 1, 2, 3)
        *_, last = shell.records('redrive', 'dead', '--limit', '2')
        assert (last['state'], last['moved']) == ('finished', 2)
        assert bodies(zaqar.queue('jobs')) == [1, 2]
        [begun] = shell.records('redrive', 'start', 'dead', '--rate', '0.01', '--no-wait')
        assert [one['id'] for one in shell.records('redrive', 'list', 'dead')] == [
            last['id'],
            begun['id'],
        ]
        [cancelled] = shell.records('redrive', 'cancel', 'dead', begun['id'])
        assert shell.records('redrive', 'show', 'dead', begun['id']) == [cancelled]
        assert cancelled['state'] == 'cancelled'
        assert dead.get_redrive(begun['id']).is_over
    for command in (('redrive', 'nowhere'), ('redrive', 'list', 'nowhere')):
        status, told = shell.failure(*command)
        assert (status, 'there is no queue nowhere' in told) == (1, True)


def test_the_terminal_says_how_to_move_what_does_not_say_where_it_is_from(shell: Shell) -> None:
    shell.records('queue', 'create', 'dead')
    shell.records('post', 'dead', '1', '2')
    finished = shell.run('redrive', 'dead')
    assert finished.returncode == 1
    last = json.loads(finished.stdout.splitlines()[-1])
    assert (last['state'], last['moved'], last['left']) == ('finished', 0, 2)
    assert 'zaqar-gevent redrive dead --target QUEUE' in finished.stderr
    *_, last = shell.records('redrive', 'dead', '--target', 'jobs')
    assert (last['moved'], last['left']) == (2, 0)
    narrow = Shell(shell.env['ZAQAR_URL'], shell.env['ZAQAR_PROJECT'], COLUMNS='40')
    table = narrow.run('redrive', 'list', 'dead', '--format', 'table').stdout
    assert last['id'] in table
