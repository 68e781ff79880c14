"""No link in the documents is dead."""

from __future__ import annotations

import functools
import pathlib
import re
from collections.abc import Iterator

import pytest
from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode

ROOT = pathlib.Path(__file__).parents[2]
DOCUMENTS = [
    *ROOT.glob('*.md'),
    *(ROOT / 'docs').glob('*.md'),
    *(ROOT / 'perf').glob('*.md'),
]


def tree_of(document: pathlib.Path) -> SyntaxTreeNode:
    parser = MarkdownIt('commonmark').enable('table')
    return SyntaxTreeNode(parser.parse(document.read_text(encoding='utf-8')))


@functools.cache
def anchors_of(document: pathlib.Path) -> set[str]:
    """The anchors of the headings, made as GitHub makes them."""
    anchors: set[str] = set()
    for node in tree_of(document).walk():
        if node.type == 'heading':
            text = ''.join(
                one.content for one in node.walk() if one.type in ('text', 'code_inline')
            )
            anchor = re.sub(r'[^\w\- ]', '', text.lower()).replace(' ', '-')
            known = sum(one.rsplit('-', 1)[0] == anchor or one == anchor for one in anchors)
            anchors.add(f'{anchor}-{known}' if anchor in anchors else anchor)
    return anchors


def targets_of(document: pathlib.Path) -> Iterator[str]:
    for node in tree_of(document).walk():
        if node.type in ('link', 'image'):
            yield str(node.attrs['href' if node.type == 'link' else 'src'])


def is_dead(document: pathlib.Path, target: str) -> bool:
    path, _, anchor = target.partition('#')
    file = document.parent / path if path else document
    return not file.exists() or (bool(anchor) and anchor not in anchors_of(file))


@pytest.mark.parametrize('document', DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: pathlib.Path) -> None:
    own = [target for target in targets_of(document) if not re.match(r'\w+://', target)]
    assert [target for target in own if is_dead(document, target)] == []


def test_dead_links_are_noticed() -> None:
    document = ROOT / 'README.md'
    assert is_dead(document, 'docs/nowhere.md')
    assert is_dead(document, 'docs/reference.md#nothing')
    assert is_dead(document, '#nothing')
    assert not is_dead(document, 'docs/reference.md#newmessage')
    assert not is_dead(document, '#start-it')
