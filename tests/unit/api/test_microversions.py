"""Who is shown what upstream's API does not know."""

from __future__ import annotations

import pytest

from zaqar_gevent.api.microversions import asks_for_extensions


@pytest.mark.parametrize(
    'header',
    [
        *('messaging 2.1', 'messaging 2.10', 'messaging 3.0', 'messaging latest'),
        *('Messaging  2.1 ', 'compute 2.90, messaging 2.1'),
    ],
)
def test_whoever_names_the_version_or_a_later_one(header: str) -> None:
    assert asks_for_extensions(header)


@pytest.mark.parametrize(
    'header',
    [
        *(None, '', ',', 'messaging', 'messaging 2.0', 'messaging 1.9', 'compute 2.1', '2.1'),
        *('messaging 2', 'messaging 2.1.1', 'messaging x.y', 'messaging 2.99999'),
        'messaging \N{ARABIC-INDIC DIGIT TWO}.\N{ARABIC-INDIC DIGIT ONE}',
    ],
)
def test_nobody_else(header: str | None) -> None:
    assert not asks_for_extensions(header)
