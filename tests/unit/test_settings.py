"""The settings of queues: one declaration, from which all else is made."""

from __future__ import annotations

import pathlib
import re

import pytest

from zaqar_gevent import operation_tables, settings_page
from zaqar_gevent.api.settings import SETTINGS
from zaqar_gevent.client import Queue, aio
from zaqar_gevent.client.metadata import settings_of

ROOT = pathlib.Path(__file__).parents[2]


def test_the_page_is_current() -> None:
    assert (ROOT / 'docs' / 'settings.md').read_text() == settings_page.write_page(), (
        'run tox -e genreference'
    )


def test_names_and_keys_are_unique_and_reserved() -> None:
    assert len({one.name for one in SETTINGS}) == len(SETTINGS)
    assert len({one.key for one in SETTINGS}) == len(SETTINGS)
    for one in SETTINGS:
        assert re.fullmatch(r'_[a-z_]+', one.key)
        assert re.fullmatch(r'[a-z][a-z_]*', one.name)
        assert one.effect[0].islower()
        assert one.default


@pytest.mark.parametrize('queue', [Queue, aio.Queue])
def test_each_is_named_where_users_look(queue: type) -> None:
    told = queue.configure.__doc__ or ''
    for one in SETTINGS:
        assert f'`{one.name}`' in told
    topics = {one.name for one in SETTINGS if one.for_topics}
    assert set(settings_of('topic')) == topics < set(settings_of('queue'))


def test_the_types_of_the_javascript_client_have_each() -> None:
    types = (ROOT / 'zaqar_gevent' / 'client' / 'js' / 'zaqar.d.ts').read_text()
    [declared] = re.findall(r'interface QueueSettings \{\n(.*?)\n\}', types, re.DOTALL)
    names = re.findall(r'^  (\w+)\?:', declared, re.MULTILINE)
    assert names == [operation_tables.camel(one.name) for one in SETTINGS]
