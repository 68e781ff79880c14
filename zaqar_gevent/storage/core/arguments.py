"""Finds the queue, project and claim of a call in the arguments of its work."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

NO_PROJECT = ''
"""The project of calls that do not name one."""


def find_project(work: Callable[..., Any], arguments: Sequence[Any]) -> str:
    """The project whose call it is, as far as its arguments say so.

    It is the argument of this name, a member of one, or the first parameter of a statement.
    """
    for name, argument in zip(get_names(work), arguments, strict=False):
        if name == 'project':
            return str(argument or '')
        if isinstance(argument, Mapping):
            return str(argument.get('project') or '')
        if name == 'parameters' and argument and isinstance(argument[0], str):
            return argument[0]
    return NO_PROJECT


def find_queue(work: Callable[..., Any], arguments: Sequence[Any]) -> tuple[str, str] | None:
    """The project and the queue that a call is about, as far as its arguments say so.

    They are arguments of these names, or members of one.
    """
    given = dict(zip(get_names(work), arguments, strict=False))
    for one in (given, *arguments):
        if isinstance(one, Mapping) and 'queue' in one:
            return str(one.get('project') or ''), str(one['queue'])
        if hasattr(one, 'queue') and hasattr(one, 'project'):
            return str(one.project or ''), str(one.queue)
    return None


@functools.lru_cache
def get_names(work: Callable[..., Any]) -> tuple[str, ...]:
    """The names of the parameters of `work` after the first, which is what it works with."""
    return tuple(inspect.signature(work).parameters)[1:]
