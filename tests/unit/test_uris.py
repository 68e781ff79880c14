"""No part of a password is shown, however a URI was written."""

from __future__ import annotations

import pytest
from zaqar.common import errors

from zaqar_gevent import uris
from zaqar_gevent.copying import main as copying
from zaqar_gevent.storage.postgresql import addresses as postgresql
from zaqar_gevent.storage.redis import addresses as redis

PARTS = ('Tops3cret', 'Pw9', 'zaqar')
"""What none of the texts may have: a user, and both halves of a password."""

READERS = {
    'postgresql': lambda uri: str(postgresql.parse(uri, 's')),
    'redis': lambda uri: str(redis.parse(uri)),
}


def read(scheme: str, rest: str) -> str:
    """What is shown of a URI, or said of one that cannot be read."""
    uri = f'{scheme}://{rest}'
    shown = [uris.conceal(uri)]
    try:
        shown.append(READERS[scheme](uri))
    except errors.ConfigurationError as error:
        shown.append(str(error))
    return ' '.join(shown)


@pytest.mark.parametrize('scheme', READERS)
@pytest.mark.parametrize('mark', ['/', '@', '?', '%ZZ', '%', ':/', '/?', '@/', '?a=', '[', ' %4'])
@pytest.mark.parametrize('host', ['127.0.0.1:5432/db', 'host', '[::1]:1/db?connect_timeout=3'])
def test_a_password_that_is_not_encoded_is_refused_and_not_shown(
    scheme: str, mark: str, host: str
) -> None:
    text = read(scheme, f'zaqar:Tops3cret{mark}Pw9@{host}')
    assert not any(part in text for part in PARTS), text
    if mark != '[' or scheme != 'postgresql':
        assert 'percent-encoded' in text


@pytest.mark.parametrize('scheme', READERS)
@pytest.mark.parametrize('password', ['', ':', ':p', ':p%2Fw%40', ':~!$&*()_+-=.,;'])
def test_what_is_encoded_is_read(scheme: str, password: str) -> None:
    uri = f'{scheme}://u{password}@h:1'
    assert uris.find_fault(uri) is None
    assert uris.conceal(uri) == f'{scheme}://h:1'


@pytest.mark.parametrize(
    'uri',
    [
        'postgresql:///db?host=@abstract',
        'postgresql://h:1,[::1]:2/db?application_name=a@b',
        'redis:///tmp/a@b.sock',
        'redis://h:1?master=m@n',
        'sqlite:///tmp/a@b/zaqar.sqlite',
        'mongodb://h:1,h2:2/db',
    ],
)
def test_what_has_no_password_is_left_alone(uri: str) -> None:
    assert uris.find_fault(uri) is None


def test_a_password_among_the_options_is_not_shown() -> None:
    for option in (
        'password=Tops3cret%ZZ',
        'password=Tops3cret&nonsense=1',
        'sslpassword=Tops3cret%',
    ):
        uri = f'postgresql://h/db?{option}'
        assert 'Tops3cret' not in uris.conceal(uri)
        with pytest.raises(errors.ConfigurationError) as caught:
            postgresql.parse(uri, 's')
        assert 'Tops3cret' not in str(caught.value)


@pytest.mark.parametrize('scheme', ['postgresql', 'redis', 'mongodb', 'nonsense'])
def test_a_copy_does_not_show_it(scheme: str, capsys: pytest.CaptureFixture[str]) -> None:
    uri = f'{scheme}://zaqar:Tops3cret/Pw9@127.0.0.1:1/db'
    assert copying.main(['copy', '--from', uri, '--to', uri]) == copying.MISUSED
    told = ''.join(capsys.readouterr())
    assert told
    assert not any(part in told.replace('zaqar-gevent', '') for part in PARTS), told
