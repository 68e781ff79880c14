"""The examples of the guide do what it says."""

from __future__ import annotations

import doctest
import pathlib

import pytest

from tests.server_process import ServerProcess

GUIDE = pathlib.Path(__file__).parents[3] / 'docs' / 'python-client.md'


def test_the_examples_of_the_guide_are_true(server: ServerProcess) -> None:
    text = GUIDE.read_text().replace('http://localhost:8888', server.url)
    names: dict[str, object] = {}
    example = doctest.DocTestParser().get_doctest(text, names, GUIDE.name, str(GUIDE), 0)
    assert len(example.examples) > 20
    report: list[str] = []
    results = doctest.DocTestRunner().run(example, out=report.append, clear_globs=False)
    client = example.globs['zaqar']
    client.close()
    if results.failed:
        pytest.fail('\n'.join(report))


def test_every_link_of_the_guide_leads_somewhere() -> None:
    text = GUIDE.read_text()
    for part in text.split('](')[1:]:
        target = part.split(')')[0]
        if target.startswith('#'):
            assert f'\n## {target[1:].capitalize()}' in text
        else:
            assert (GUIDE.parent / target.split('#')[0]).exists(), target
