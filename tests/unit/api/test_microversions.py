"""Which version of the API a client asks for."""

from __future__ import annotations

import pytest

from zaqar_gevent.api import errors
from zaqar_gevent.api.microversions import EXTENDED, MAXIMUM, MINIMUM, asked_for


@pytest.mark.parametrize(
    'header',
    [
        *('messaging 2.1', 'messaging latest', 'Messaging  2.1 '),
        *('compute 2.90, messaging 2.1', 'compute latest,messaging 2.1'),
    ],
)
def test_whoever_names_the_extended_version_is_shown_the_extensions(header: str) -> None:
    version = asked_for(header)
    assert version == EXTENDED
    assert version.shows_extensions


def test_the_first_version_has_no_extensions() -> None:
    version = asked_for('messaging 2.0')
    assert version == MINIMUM
    assert not version.shows_extensions
    assert version.header == 'messaging 2.0'


@pytest.mark.parametrize(
    'header',
    [
        *(None, '', ',', 'messaging', 'compute 2.1', '2.1'),
        *('messaging 2', 'messaging 2.1.1', 'messaging x.y', 'messaging 2.99999'),
        'messaging \N{ARABIC-INDIC DIGIT TWO}.\N{ARABIC-INDIC DIGIT ONE}',
    ],
)
def test_whoever_asks_for_nothing_gets_what_upstream_gives(header: str | None) -> None:
    assert asked_for(header) is None


@pytest.mark.parametrize('version', ['1.9', '2.2', '2.10', '3.0'])
def test_a_version_that_is_not_served_is_refused_with_those_that_are(version: str) -> None:
    with pytest.raises(errors.NotAcceptable, match=f'{MINIMUM} to {MAXIMUM}, not in {version}'):
        asked_for(f'messaging {version}')
