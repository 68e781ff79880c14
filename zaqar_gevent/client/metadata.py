"""Applies settings by name to the metadata of a queue."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from zaqar_gevent.client.queue_settings import SETTINGS, Setting

_KEYS = {one.key for one in SETTINGS}


def settings_of(kind: str) -> dict[str, Setting]:
    """The settings of a `queue` or `topic`, by their names."""
    return {one.name: one for one in SETTINGS if kind == 'queue' or one.for_topics}


def values_of(
    kind: str, own: Mapping[str, Any] | None, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """The values by the keys of the metadata.

    own: by keys of the metadata. settings: by names of settings.

    Raises TypeError for a name that no setting has, and ValueError for a reserved key that means
    nothing.
    """
    if own is not None and not isinstance(own, Mapping):
        raise TypeError(
            "The keys of your own must be a dict such as {'owner': 'shop'}; settings are given by "
            'name, such as max_claims=3.'
        )
    known = settings_of(kind)
    values = dict(own or {})
    for key in values:
        check_key(key)
    for name, value in settings.items():
        if name not in known:
            raise TypeError(
                f'A {kind} has no setting {name!r}{_nearest(name, known)}; there are '
                f'{", ".join(known)}.'
            )
        values[known[name].key] = value
    return values


def check_key(key: str) -> None:
    """Raise ValueError for a key that is reserved, but means nothing; it may be misspelt."""
    if key.startswith('_') and key not in _KEYS:
        raise ValueError(
            f'{key!r} is no setting{_nearest(key, _KEYS)}; keys that start with _ are reserved for '
            f'{", ".join(sorted(_KEYS))}.'
        )


def _nearest(name: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(name, list(known), 1)
    return f' (did you mean {found[0]}?)' if found else ''


def patch_of(values: Mapping[str, Any], present: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A JSON patch that sets values, and removes keys whose value is None if they are present."""
    changes = []
    for key, value in values.items():
        path = '/metadata/' + key.replace('~', '~0').replace('/', '~1')
        if value is not None:
            changes.append({'op': 'add', 'path': path, 'value': value})
        elif key in present:
            changes.append({'op': 'remove', 'path': path})
    return changes
