"""Which version of the API a client asks for."""

from __future__ import annotations

import pytest

from zaqar_gevent.api import errors
from zaqar_gevent.api.microversions import (
    EXTENDED,
    MAXIMUM,
    MINIMUM,
    asked_for,
    asked_for_or_latest,
)


@pytest.mark.parametrize(
    'header',
    [
        *('messaging 2.1', 'messaging latest', 'Messaging  2.1 '),
        *('messaging\t2.1', '\tmessaging \t latest\t'),
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
        *(None, '', ',', 'compute 2.1', 'messagings 2.1', 'compute x, storage 2.1'),
    ],
)
def test_whoever_asks_for_nothing_gets_what_upstream_gives(header: str | None) -> None:
    assert asked_for(header) is None


@pytest.mark.parametrize(
    'version',
    [
        *(
            '',
            '2',
            '2.1.0',
            '2.1.1',
            'x.y',
            '2.1x',
            '-2.1',
            '2.-1',
            '+2.1',
            '2.',
            '.1',
            '02.1',
            '2.01',
        ),
        *('2.1 2.1', '2,1', 'LATEST', '2.latest', '2.1;', '2\x0b.1', '\xa02.1', '2.1\n'),
        '\N{ARABIC-INDIC DIGIT TWO}.\N{ARABIC-INDIC DIGIT ONE}',
    ],
)
def test_what_is_no_version_is_refused_with_what_is_allowed(version: str) -> None:
    with pytest.raises(errors.BadRequest, match=r'"messaging 2\.1", or "messaging latest"'):
        asked_for(f'messaging {version}')
    assert asked_for_or_latest(f'messaging {version}') == MAXIMUM


@pytest.mark.parametrize(
    'header', ['2.1', 'garbage', 'compute 2.1, 2.1', 'messaging 2.1, 2.1', 'latest']
)
def test_a_version_without_a_service_is_refused(header: str) -> None:
    with pytest.raises(errors.BadRequest, match=r'must be "messaging MAJOR\.MINOR"'):
        asked_for(header)
    assert asked_for_or_latest(header) == MAXIMUM


def test_a_huge_version_is_not_served() -> None:
    for version in (f'{10**20}.1', f'2.{10**20}', '9' * 5000 + '.1', '2.99999'):
        with pytest.raises(errors.NotAcceptable) as caught:
            asked_for(f'messaging {version}')
        assert len(caught.value.description) < 250
    assert asked_for_or_latest(f'messaging {10**20}.1') == MAXIMUM


@pytest.mark.parametrize('version', ['1.9', '2.2', '2.10', '3.0'])
def test_a_version_that_is_not_served_is_refused_with_those_that_are(version: str) -> None:
    with pytest.raises(errors.NotAcceptable, match=f'{MINIMUM} to {MAXIMUM}, not in {version}'):
        asked_for(f'messaging {version}')
