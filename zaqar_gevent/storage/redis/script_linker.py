"""Puts a script together with the definitions that it uses.

PERF: Redis makes the functions of a script anew whenever it runs, so a script has only those that
it needs.
"""

from __future__ import annotations

import re

_DEFINITION = re.compile(r'^local (?:function )?([\w, \n]+)', re.MULTILINE)
_END = re.compile(r'^(?=local |--)', re.MULTILINE)
_WORD = re.compile(r'\w+')
_COMMENT = re.compile(r'--.*')


def link_script(library: str, script: str) -> str:
    """The script behind those definitions of the library that it uses, directly or not.

    library: Lua whose statements are definitions (`local ...`), each from the beginning of a line
        to the next definition or comment at the beginning of a line.
    """
    used = _words(script)
    parts = [script]
    for statement in reversed(_END.split(library)):
        definition = _DEFINITION.match(statement)
        if definition and used.intersection(_WORD.findall(definition[1])):
            used |= _words(statement)
            parts.append(statement)
    return ''.join(reversed(parts))


def _words(text: str) -> set[str]:
    return set(_WORD.findall(_COMMENT.sub('', text)))
