"""Translates PostgreSQL's errors into outcomes of transactions."""

from __future__ import annotations

import enum

import msgspec

from zaqar_gevent.storage.moves import Mark, QueueMoved
from zaqar_gevent.storage.postgresql import wire


class Meaning(enum.Enum):
    """The outcome of a transaction that an error of PostgreSQL ended."""

    AGAIN = 'it was undone: do it again'
    LOST = 'this server is of no use now: look for another, or wait'
    UNPREPARED = 'prepared statements do not work: do without'
    TOO_LONG = 'it took too long'
    MOVED = 'the queue is not used from this database'
    REFUSED = 'fail'


# By SQLSTATE, or by its class, which are the first two characters.
_MEANINGS = {
    wire.UNDONE: Meaning.AGAIN,
    '40001': Meaning.AGAIN,  # serialization failure
    '40P01': Meaning.AGAIN,  # deadlock
    '55P03': Meaning.AGAIN,  # lock not available
    # What is done once more meets what it did the first time, just committed.
    '23505': Meaning.AGAIN,
    '57P01': Meaning.LOST,  # the administrator ends the connection, or the server
    '57P02': Meaning.LOST,
    '57P03': Meaning.LOST,  # it is starting, stopping or recovering
    '57P05': Meaning.LOST,  # idle for too long
    '25P03': Meaning.LOST,  # idle in a transaction for too long
    '25006': Meaning.LOST,  # read-only: a standby
    '08': Meaning.LOST,
    '26000': Meaning.UNPREPARED,
    '42P05': Meaning.UNPREPARED,
    '57014': Meaning.TOO_LONG,
    'ZQ001': Meaning.MOVED,
}

_NO_RIGHTS = '42501'

_REASONS = {
    '25006': 'it is a standby, which cannot be written',
    '53100': 'its disk is full',
    '53200': 'it is out of memory',
    '53300': 'it has too many connections',
    '28P01': 'the user name or the password is wrong',
    '40001': 'the transaction was undone for the sake of others, again and again',
    '40P01': 'transactions waited for one another, again and again',
}


def read_mark(text: str) -> QueueMoved:
    """The error of a call for a queue that is not used from this database."""
    project, queue, mark = msgspec.json.decode(text, type=tuple[str, str, Mark])
    return QueueMoved(project, queue, mark)


def read_state(state: str, text: str) -> tuple[Meaning, str]:
    """The outcome for this SQLSTATE, and the reason in a few words."""
    meaning = _MEANINGS.get(state) or _MEANINGS.get(state[:2]) or Meaning.REFUSED
    text = ' '.join(text.split()) or state
    if state == _NO_RIGHTS:
        text = f'the user may not do what is needed: {text}'
    return meaning, _REASONS.get(state) or text
