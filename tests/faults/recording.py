"""What a program writes to files and syncs, in the order in which the kernel was asked to.

strace sees every call of every thread and process, whichever library makes it.
"""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tests.browser.provisions import install

_CALLS = (
    *('open', 'openat', 'creat', 'mkdir', 'mkdirat', 'unlink', 'unlinkat', 'rename', 'renameat'),
    *('renameat2', 'write', 'writev', 'pwrite64', 'pwritev', 'ftruncate', 'truncate', 'fallocate'),
    *('fsync', 'fdatasync', 'sync_file_range', 'link', 'linkat', 'copy_file_range', 'sendfile'),
)
_LINE = re.compile(r'^(?P<pid>\d+) +(?P<name>\w+)\((?P<rest>.*)$', re.DOTALL)
_RESUMED = re.compile(r'^(?P<pid>\d+) +<\.\.\. (?P<name>\w+) resumed>(?P<rest>.*)$', re.DOTALL)
_UNFINISHED = ' <unfinished ...>'
_RESULT = re.compile(r'\) += (?P<value>-?\d+)(?P<fd><[^>]*>)?[^=]*$')
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_DESCRIPTOR = re.compile(r'^(?:\d+|AT_FDCWD)<([^>]*)>(\(deleted\))?')


class Operation(NamedTuple):
    """One call that succeeded.

    path: of the file or directory; of a deleted file, the one it had. sync: the number of the
        operation that begins a `sync`, of the one that ends it.
    """

    kind: str
    path: str
    data: bytes = b''
    offset: int = 0
    sync: int = -1
    is_deleted: bool = False


def why_not() -> str | None:
    """Why programs cannot be traced here; strace is installed where it may be."""
    if not shutil.which('strace') and os.geteuid() == 0 and shutil.which('apt-get'):
        install(['strace'])
    strace = shutil.which('strace')
    if strace is None:
        return 'strace is not installed'
    if subprocess.run([strace, '-qq', '-o', '/dev/null', 'true']).returncode != 0:
        return 'strace must not trace here'
    return None


def record(command: Sequence[str], output: pathlib.Path, within: pathlib.Path) -> list[Operation]:
    """Run `command` to its end; what it did to files under `within`."""
    strace = ['strace', '-f', '--seccomp-bpf', '-qq', '-y', '-xx', '-s', str(1 << 24)]
    subprocess.run(
        [*strace, '-e', f'trace={",".join(_CALLS)}', '-o', str(output), *command],
        check=True,
        timeout=120,
    )
    return list(_parse(output.read_text(errors='replace').splitlines(), str(within)))


def _parse(lines: Sequence[str], within: str) -> Iterator[Operation]:
    begun: dict[str, tuple[str, int]] = {}
    count = 0
    for line in lines:
        resumed = _RESUMED.match(line)
        started = None if resumed else _LINE.match(line)
        if resumed:
            rest, sync = begun.pop(resumed['pid'], ('', -1))
            name, text = resumed['name'], rest + resumed['rest']
        elif started:
            name, text, sync = started['name'], started['rest'], -1
            if text.endswith(_UNFINISHED):
                text = text.removesuffix(_UNFINISHED)
                begun[started['pid']] = text, count
                if name in ('fsync', 'fdatasync'):
                    path, _ = _descriptor(text)
                    if path.startswith(within):
                        yield Operation('begin', path)
                        count += 1
                continue
        else:
            continue
        for operation in _read(name, text, sync):
            if operation.path.startswith(within):
                yield operation
                count += 1


def _read(name: str, text: str, sync: int) -> Iterator[Operation]:
    result = _RESULT.search(text)
    if result is None or int(result['value']) < 0:
        return
    value = int(result['value'])
    if name in ('open', 'openat', 'creat'):
        yield from _read_open(name, text)
    elif name in ('mkdir', 'mkdirat', 'unlink', 'unlinkat'):
        kind = 'mkdir' if name.startswith('mkdir') else 'unlink'
        yield Operation(kind, _join(text, _strings(text)[0]))
    elif name in ('fsync', 'fdatasync'):
        path, is_deleted = _descriptor(text)
        yield Operation('sync', path, sync=sync, is_deleted=is_deleted)
    elif name in ('write', 'pwrite64'):
        path, is_deleted = _descriptor(text)
        data = bytes.fromhex(_strings(text)[0].replace('\\x', ''))[:value]
        offset = int(text[: result.start()].rsplit(', ', 1)[1]) if name == 'pwrite64' else -1
        yield Operation('write', path, data, offset, is_deleted=is_deleted)
    elif name == 'ftruncate':
        path, is_deleted = _descriptor(text)
        size = int(text[: result.start()].rsplit(', ', 1)[1])
        yield Operation('truncate', path, offset=size, is_deleted=is_deleted)
    else:
        # Rather than to pass over something: nothing recorded here does it so far.
        path, _ = _descriptor(text)
        yield Operation(f'unknown {name}', path)


def _read_open(name: str, text: str) -> Iterator[Operation]:
    path = _join(text, _strings(text)[0])
    if name == 'creat' or 'O_CREAT' in text:
        yield Operation('create', path)
    if name == 'creat' or 'O_TRUNC' in text:
        yield Operation('truncate', path)


def _strings(text: str) -> list[str]:
    return _STRING.findall(text)


def _descriptor(text: str) -> tuple[str, bool]:
    found = _DESCRIPTOR.match(text)
    if found is None:
        return '', False
    return _decode(found[1]), bool(found[2])


def _join(text: str, encoded: str) -> str:
    name = _decode(encoded)
    return os.path.join(_descriptor(text)[0], name)


def _decode(text: str) -> str:
    return bytes.fromhex(text.replace('\\x', '')).decode() if text.startswith('\\x') else text
