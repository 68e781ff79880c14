"""The client alone is a distribution of its own, which asks for what the client needs."""

from __future__ import annotations

import importlib.metadata
import pathlib
import tomllib

ROOT = pathlib.Path(__file__).parents[3]
ALONE = ROOT / 'packaging' / 'client'


def project() -> dict[str, object]:
    return tomllib.loads((ALONE / 'pyproject.toml').read_text())['project']


def test_it_is_the_same_client() -> None:
    assert (ALONE / 'zaqar_gevent' / 'client').resolve() == ROOT / 'zaqar_gevent' / 'client'
    assert (ALONE / 'LICENSE').read_text() == (ROOT / 'LICENSE').read_text()


def test_it_has_the_version_of_the_server() -> None:
    version = project()['version']
    assert f"version='{version}'" in (ROOT / 'setup.py').read_text()


def test_it_asks_for_what_the_extra_asks_for() -> None:
    text = (ROOT / 'setup.py').read_text()
    [line] = [one for one in text.splitlines() if one.strip().startswith("'client': [")]
    needed = sorted(line.split('[', 1)[1].rsplit(']', 1)[0].replace("'", '').split(', '))
    assert needed == sorted(project()['dependencies'])  # type: ignore[call-overload]
    for requirement in needed:
        importlib.metadata.version(requirement.split('>')[0].split('[')[0])
