"""Writes the blocking client from the asyncio client.

::

    python -m tools.blocking_client

Whatever both do is written once, in `zaqar_gevent/client/aio`. The blocking client is the same text
without `async` and `await`, in `zaqar_gevent/client/sync`; what waits is different modules of the
same names there, written by hand: `io`, `connection` and `http`.
"""

from __future__ import annotations

import pathlib
import re

_CLIENT = pathlib.Path(__file__).parents[1] / 'zaqar_gevent' / 'client'
SOURCES = _CLIENT / 'aio'
TARGETS = _CLIENT / 'sync'
# What is different in each, or belongs to one of them.
_BY_HAND = {
    *('__init__.py', 'connection.py', 'http.py', 'io.py', 'socket_stream.py', 'waiters.py'),
    'websocket.py',
}

_NOTE = """\
# Written by `tox -e genblocking` from client/aio/{}: change that one.
# fmt: off
"""

_RULES = [
    (r'from zaqar_gevent\.client\.aio\.io import Opening\n', ''),
    (r'Opening\[(\w+)\]', r'\1'),
    (r'return Opening\((.*)\)\n', r'return \1\n'),
    (r'\bzaqar_gevent\.client\.aio\b', 'zaqar_gevent.client.sync'),
    (r'\basync (def|for|with) ', r'\1 '),
    (r'\bawait ', ''),
    (r'\b__aenter__\b', '__enter__'),
    (r'\b__aexit__\b', '__exit__'),
    (r'\b__aiter__\b', '__iter__'),
    (r'\b__anext__\b', '__next__'),
    (r'\bStopAsyncIteration\b', 'StopIteration'),
    (r'\bAsyncIterator\b', 'Iterator'),
]


def files() -> dict[pathlib.Path, str]:
    """What each generated file must hold."""
    names = sorted(path.name for path in SOURCES.glob('*.py') if path.name not in _BY_HAND)
    return {TARGETS / name: _blocking(SOURCES / name) for name in names}


def _blocking(source: pathlib.Path) -> str:
    text = source.read_text(encoding='utf-8')
    for pattern, replacement in _RULES:
        text = re.sub(pattern, replacement, text)
    return _NOTE.format(source.name) + text


def main() -> None:
    """Write the files."""
    for path, text in files().items():
        path.write_text(text, encoding='utf-8')


if __name__ == '__main__':
    main()
