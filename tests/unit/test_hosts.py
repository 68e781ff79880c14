"""Which hosts a server without authentication answers to."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest

from zaqar_gevent.api import errors
from zaqar_gevent.hosts import Hosts, check_hosts, is_loopback
from zaqar_gevent.origins import Origins
from zaqar_gevent.proxies import RECEIVED_HOST

OWN = (
    *('localhost', 'LocalHost:8888', 'localhost.', 'localhost.:8888', 'localhost:'),
    *('console.localhost', 'localhost.localdomain', 'ip6-localhost', 'ip6-loopback'),
    *('127.0.0.1', '127.0.0.1:8888', '127.9.9.9', '192.0.2.7:1', '0.0.0.0', '127.0.0.1.'),
    *('[::1]', '[::1]:8888', '[2001:DB8::7]:65535', '[::ffff:127.0.0.1]', '[fe80::1%eth0]'),
)
OTHERS = (
    *('evil.example', 'evil.example:8888', 'EVIL.example.', 'example'),
    *('localhost.evil.example', 'evillocalhost', 'localhost.evil', '127.0.0.1.evil.example'),
    # Addresses that browsers would have written in full.
    *('127.1', '2130706433', '0x7f000001', '0177.0.0.1', '127.0.0.256'),
)
NONE = (
    *('', ' ', 'local host', ' localhost', 'localhost ', 'localhost\n', 'localhost\t'),
    *('user@localhost', 'localhost@evil.example', 'user:secret@localhost:8888', 'localhost/'),
    *('localhost:65536', 'localhost:-1', 'localhost:x', 'localhost:8888:8888', 'localhost:888888'),
    *('localhost,evil.example', 'localhost, localhost', 'http://localhost', '//localhost'),
    *('::1', '[::1', '::1]', '[]', '[::1]x', '[127.0.0.1]', '[v1.x]', '[localhost]', '[[::1]]'),
    *('loc%61lhost', 'localhost\0', 'l\u00f6calhost', '.', '..', '.localhost', 'localhost..'),
    *('a' * 300, '-', '*'),
)


@pytest.mark.parametrize('host', OWN)
def test_addresses_and_names_of_loopback_are_allowed(host: str) -> None:
    assert Hosts([]).allows(host)


@pytest.mark.parametrize('host', [*OTHERS, *NONE])
def test_other_hosts_are_not(host: str) -> None:
    assert not Hosts([]).allows(host)


@pytest.mark.parametrize('name', [socket.gethostname(), socket.getfqdn()])
def test_the_name_of_the_machine_is_allowed(name: str) -> None:
    assert Hosts([]).allows(name)
    assert Hosts([]).allows(f'{name.upper()}.:8888')
    assert not Hosts([]).allows(f'{name}.evil.example')


@pytest.mark.parametrize('entry', ['Zaqar.Example', 'zaqar.example.', 'zaqar.example:8888'])
def test_listed_names_are_allowed_whatever_the_port(entry: str) -> None:
    hosts = Hosts([entry])
    assert hosts.allows('zaqar.example')
    assert hosts.allows('ZAQAR.example.:443')
    assert not hosts.allows('other.zaqar.example')
    assert not hosts.allows('zaqar.example.evil.example')


@pytest.mark.parametrize('host', [*OTHERS, *NONE])
def test_an_asterisk_allows_every_host(host: str) -> None:
    Hosts(['zaqar.example', '*']).check({'HTTP_HOST': host, 'PATH_INFO': '/'})


@pytest.mark.parametrize(
    'entry', ['http://zaqar.example', '', 'a b', '*.example', 'b\u00fccher.example']
)
def test_an_entry_that_is_no_host_is_an_error(entry: str) -> None:
    with pytest.raises(ValueError, match='is no host name'):
        Hosts([entry])


def test_a_request_without_a_host_comes_from_no_browser() -> None:
    Hosts([]).check({'PATH_INFO': '/'})


@pytest.mark.parametrize(
    'environ',
    [
        {'HTTP_HOST': 'evil.example'},
        {'HTTP_HOST': ''},
        # What a proxy says does not make up for what came to the server itself.
        {'HTTP_HOST': 'localhost', RECEIVED_HOST: 'evil.example'},
        {'HTTP_HOST': 'evil.example', RECEIVED_HOST: 'localhost'},
        {'HTTP_HOST': 'localhost', 'PATH_INFO': 'http://evil.example:8888/v2/queues'},
        {'HTTP_HOST': 'evil.example', 'PATH_INFO': 'http://localhost:8888/v2/queues'},
        {'PATH_INFO': 'http://localhost@evil.example/'},
        {'PATH_INFO': 'http://[::1/'},
        {'PATH_INFO': 'evil.example:443'},
    ],
)
def test_every_host_that_a_request_names_must_be_allowed(environ: dict[str, Any]) -> None:
    with pytest.raises(errors.Forbidden, match='allowed_hosts'):
        Hosts([]).check(environ)


@pytest.mark.parametrize('target', ['/', '/http://evil.example/', '*', 'http://localhost:1/', ''])
def test_the_target_of_a_request_may_name_an_allowed_host(target: str) -> None:
    Hosts([]).check({'HTTP_HOST': 'localhost', 'PATH_INFO': target})


def test_the_refusal_is_a_document_that_says_what_to_do() -> None:
    answered: list[Any] = []
    app = check_hosts(lambda environ, start_response: [b'secret'], Hosts(['zaqar.example']))
    host = 'evil.example' + 'x' * 1000
    body = b''.join(app({'HTTP_HOST': host}, lambda *start: answered.extend(start)))
    status, headers = answered
    assert status.startswith('403 ')
    assert dict(headers)['Content-Length'] == str(len(body))
    document = json.loads(body)
    assert document['code'] == 'forbidden'
    assert document['title'] == 'Host not allowed'
    for told in ('evil.example', 'allowed_hosts', 'drivers:transport:gevent', '--allowed-host'):
        assert told in document['description']
    assert len(document['description']) < 500
    assert b''.join(app({'HTTP_HOST': 'zaqar.example'}, lambda *start: None)) == b'secret'
    assert app({'HTTP_HOST': host, 'REQUEST_METHOD': 'HEAD'}, lambda *start: None) == []


@pytest.mark.parametrize(
    'address', ['127.0.0.1', '127.1.2.3', '::1', '::ffff:127.0.0.1', 'LOCALHOST']
)
def test_loopback_is_reached_by_this_machine_only(address: str) -> None:
    assert is_loopback(address)


@pytest.mark.parametrize(
    'address', ['0.0.0.0', '::', '192.0.2.7', '::ffff:192.0.2.7', 'example', '']
)
def test_other_addresses_are_not_loopback(address: str) -> None:
    assert not is_loopback(address)


@pytest.mark.parametrize(
    ('origin', 'scheme', 'is_allowed'),
    [
        ('https://zaqar.example', 'https', True),
        ('https://zaqar.example:443', 'https', True),
        ('http://zaqar.example', 'https', False),
        ('http://zaqar.example:80', 'https', False),
        # Behind a proxy that ends TLS and does not tell of it.
        ('https://zaqar.example', 'http', True),
        ('http://zaqar.example', 'http', True),
        ('https://zaqar.example:8443', 'https', False),
    ],
)
def test_a_page_over_http_is_of_another_origin_than_a_server_over_tls(
    origin: str, scheme: str, is_allowed: bool
) -> None:
    asked = {'HTTP_HOST': 'zaqar.example', 'HTTP_ORIGIN': origin, 'wsgi.url_scheme': scheme}
    assert Origins(()).allow(asked) == is_allowed
