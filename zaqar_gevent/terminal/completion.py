"""Shell completion of names that only the server knows."""

from __future__ import annotations

import argparse
import itertools
from typing import Any

# A shell waits while its user types.
_SECONDS = 1.0
_NAMES = 1000


def queue_names(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """The names of queues that begin with `prefix`, as argcomplete asks for them."""
    return _names(prefix, parsed_args, 'queue')


def topic_names(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """The same of topics."""
    return _names(prefix, parsed_args, 'topic')


def _names(prefix: str, arguments: argparse.Namespace, kind: str) -> list[str]:
    from zaqar_gevent.client import Client, ZaqarError
    from zaqar_gevent.terminal.arguments import place

    try:
        with Client(
            **place(arguments),
            token=arguments.token,
            transport='rest',
            timeout=_SECONDS,
        ) as client:
            named = client.queues if kind == 'queue' else client.topics
            names = (one.name for one in named(name=prefix or None))
            return [name for name in itertools.islice(names, _NAMES) if name.startswith(prefix)]
    except (ZaqarError, ValueError, ImportError):
        # Without a server there is nothing to complete, and nowhere to say so.
        return []
