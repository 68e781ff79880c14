"""Options in configuration files that nothing reads, most often because they are misspelt."""

from __future__ import annotations

import difflib
import pathlib
from collections.abc import Callable, Collection, Iterable, Iterator
from importlib import metadata
from typing import Any, NamedTuple

from oslo_config import cfg

# Whose options a file may set: those of the sample configuration.
_NAMESPACES = (
    *('zaqar_gevent', 'zaqar', 'oslo.log', 'oslo.cache', 'oslo.policy', 'oslo.middleware.cors'),
    *('oslo.middleware.healthcheck', 'oslo.middleware.http_proxy_to_wsgi', 'oslo.reports'),
    *('keystonemiddleware.auth_token', 'osprofiler'),
)
# Their options depend on the plugin that authenticates.
_OPEN_GROUPS = frozenset({'keystone_authtoken', 'trustee', 'signed_url_trustee'})
_CORS = 'cors.'

_Groups = dict[str, set[str]]


class UnknownOption(NamedTuple):
    """An option, or a whole group (`option` is None), that has no effect.

    suggestion: what may have been meant, or None.
    """

    path: str
    group: str
    option: str | None
    suggestion: str | None

    @property
    def may_be_foreign(self) -> bool:
        """Whether it may be meant for other software that reads the same file."""
        return self.option is None and self.suggestion is None

    def describe(self) -> str:
        """One line for the operator."""
        if self.option is None:
            text = f'{self.path}: [{self.group}] is not a group of options, and has no effect'
        else:
            text = f'{self.path}: [{self.group}] has no option {self.option}; it has no effect'
        return text if self.suggestion is None else f'{text}. Did you mean {self.suggestion}?'


def find_unknown_options(conf: cfg.ConfigOpts) -> Iterator[UnknownOption]:
    """The options in the files of `conf` that neither this server nor its libraries know."""
    paths = tuple(files_of(conf))
    known = _known_groups() if paths else {}
    for path in paths:
        sections: dict[str, dict[str, Any]] = {}
        cfg.ConfigParser(path, sections).parse()
        for group, options in sections.items():
            yield from _unknown_in(path, group, options, known)


def _unknown_in(
    path: str, group: str, options: Iterable[str], known: _Groups
) -> Iterator[UnknownOption]:
    name = group.lower()
    if name in _OPEN_GROUPS:
        return
    names = known.get(_CORS.rstrip('.') if name.startswith(_CORS) else name)
    if names is None:
        suggestion = _closest(name, known)
        yield UnknownOption(path, group, None, suggestion and f'[{suggestion}]')
        return
    for option in options:
        if _normalized(option) not in names:
            yield UnknownOption(path, group, option, _suggest(option, name, known))


def _suggest(option: str, group: str, known: _Groups) -> str | None:
    """An option with a similar name in the same group, or one of this very name in another."""
    name = _normalized(option)
    near = _closest(name, known[group])
    if near is not None:
        return near
    others = [other for other, names in known.items() if name in names]
    return f'{option} in [{others[0]}]' if len(others) == 1 else None


def _closest(name: str, names: Collection[str]) -> str | None:
    return next(iter(difflib.get_close_matches(name, names, n=1, cutoff=0.75)), None)


def files_of(conf: cfg.ConfigOpts) -> Iterator[str]:
    """The files that were read, in the order in which they were."""
    yield from conf.config_file or ()
    for directory in conf.config_dir or ():
        yield from map(str, sorted(pathlib.Path(directory).glob('*.conf')))


def _known_groups() -> _Groups:
    """The names of all options that may be set, by group in lower case."""
    known: _Groups = {}
    for list_opts in _listings():
        for group, options in list_opts():
            for option in options:
                for place, name in _names(group, option):
                    known.setdefault(place.lower(), set()).add(_normalized(name))
    return known


def _listings() -> Iterator[Callable[[], Iterable[tuple[Any, Iterable[cfg.Opt]]]]]:
    for entry_point in metadata.entry_points(group='oslo.config.opts'):
        if entry_point.name in _NAMESPACES:
            yield entry_point.load()


def _names(group: Any, option: cfg.Opt) -> Iterator[tuple[str, str]]:
    """Where an option may be set, the names that it had before included."""
    place = str(getattr(group, 'name', group) or 'DEFAULT')
    yield place, option.name
    yield place, option.dest
    for deprecated in option.deprecated_opts:
        yield deprecated.group or place, deprecated.name or option.dest


def _normalized(name: str) -> str:
    return name.replace('-', '_')
