"""Translates Redis's errors into outcomes of calls."""

from __future__ import annotations

import enum
import re

import msgspec

from zaqar_gevent.storage.moves import Mark, QueueMoved

# An error is named at its start or, where it comes out of a script, behind a dash.
_CODE = re.compile(r'(?:^|-)(?P<code>[A-Z]{3,})\b')
# What a command that Redis does not know was called with: keys, ids and bodies.
_ARGUMENTS = re.compile(r',? with args beginning with:.*', re.DOTALL)
_SENSELESS = re.compile(r'ERR Error running script \(call to [^)]*\): (@user_script:\s*\d+: )*-?')


class Meaning(enum.Enum):
    """The outcome of a call that Redis answered with an error."""

    UNKNOWN_SCRIPT = 'send the text of the script'
    WRONG_SERVER = 'look for the master, and ask it'
    NOT_NOW = 'ask again in a moment'
    MOVED = 'the queue is not used from this server'
    REFUSED = 'fail'


_MEANINGS = {
    'NOSCRIPT': Meaning.UNKNOWN_SCRIPT,
    'READONLY': Meaning.WRONG_SERVER,
    'MASTERDOWN': Meaning.WRONG_SERVER,
    'LOADING': Meaning.NOT_NOW,
    'BUSY': Meaning.NOT_NOW,
    'TRYAGAIN': Meaning.NOT_NOW,
}

_REASONS = {
    'LOADING': 'it is loading its data',
    'BUSY': 'it is busy with a script',
    'READONLY': 'it is a replica, which cannot be written',
    'MASTERDOWN': 'it is a replica without its master',
    'OOM': 'it is out of memory (maxmemory)',
    'MISCONF': 'it cannot save to disk, and so refuses to be written',
    'NOREPLICAS': 'it has too few replicas, and so refuses to be written',
    'MOVED': 'it is part of a Redis Cluster, which the keys of Zaqar cannot be spread over; use '
    'pools of single servers instead',
    'NOAUTH': 'it wants a password',
    'WRONGPASS': 'the user name or the password is wrong',
    'NOPERM': 'the user may not do what is needed',
}

WRITES_REFUSED = frozenset(_REASONS[code] for code in ('OOM', 'MISCONF', 'NOREPLICAS'))
"""Reasons that may pass by themselves, and for which reads are still served."""

_MARK = re.compile(r'ZMOVED (\[.*\])')


def read_mark(text: str) -> QueueMoved:
    """What an error says of which the meaning is `MOVED`."""
    found = _MARK.search(text)
    assert found is not None
    project, queue, mark = msgspec.json.decode(found[1], type=tuple[str, str, Mark])
    return QueueMoved(project, queue, mark)


def read_error(text: str) -> tuple[Meaning, str]:
    """The outcome for an error, and the reason in a few words, without the call's arguments."""
    text = _ARGUMENTS.sub('', text)
    if _MARK.search(text) is not None:
        return Meaning.MOVED, 'the queue is being moved'
    codes = [match['code'] for match in _CODE.finditer(text)]
    code = next((one for one in codes if one in _MEANINGS or one in _REASONS), '')
    reason = _REASONS.get(code) or _SENSELESS.sub('', text)
    return _MEANINGS.get(code, Meaning.REFUSED), reason
