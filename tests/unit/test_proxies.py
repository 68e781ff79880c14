"""What is believed of the headers that proxies set, and clients may have sent."""

from __future__ import annotations

import pathlib
import re
from typing import Any

import pytest
from oslo_config import cfg

from zaqar_gevent.conf import ConfigurationError
from zaqar_gevent.proxies import (
    FORWARDED,
    PREFIX,
    RECEIVED_HOST,
    X_FORWARDED,
    believe,
    trust_proxies,
)
from zaqar_gevent.server import TransportDriver

ETC = pathlib.Path(__file__).parents[2] / 'etc'
PEER = '192.0.2.1'

ADDRESSES = [
    ('203.0.113.9', '203.0.113.9'),
    ('203.0.113.9:4711', '203.0.113.9'),
    ('2001:DB8::9', '2001:db8::9'),
    ('[2001:db8::9]', '2001:db8::9'),
    ('[2001:db8::9]:4711', '2001:db8::9'),
    ('::ffff:203.0.113.9', '203.0.113.9'),
    # What is no address leaves that of the proxy.
    ('unknown', PEER),
    ('_hidden', PEER),
    ('203.0.113', PEER),
    ('203.0.113.999', PEER),
    ('<script>', PEER),
    ('', PEER),
]


def told(kind: str, **headers: str) -> dict[str, Any]:
    """The environment of a request with these headers, as believed."""
    environ = {'REMOTE_ADDR': PEER, 'HTTP_HOST': 'asked.example', 'wsgi.url_scheme': 'http'}
    environ.update({f'HTTP_{name.upper()}': value for name, value in headers.items()})
    believe(environ, kind)
    return environ


@pytest.mark.parametrize(('node', 'address'), ADDRESSES)
def test_the_last_address_counts(node: str, address: str) -> None:
    assert told(X_FORWARDED, x_forwarded_for=node)['REMOTE_ADDR'] == address
    assert told(X_FORWARDED, x_forwarded_for=f'198.51.100.6, {node}')['REMOTE_ADDR'] == address
    quoted = f'for=198.51.100.6, for="{node}"'
    assert told(FORWARDED, forwarded=quoted)['REMOTE_ADDR'] == address


@pytest.mark.parametrize(
    'sent',
    [
        'for=198.51.100.6',
        'for="',
        'for=198.51.100.6;x="',
        'for=198.51.100.6;x="\\',
        'nonsense',
        ';;;',
        ',,,',
    ],
)
def test_nothing_that_a_client_sends_hides_what_the_proxy_adds(sent: str) -> None:
    environ = told(FORWARDED, forwarded=f'{sent}, for="[2001:db8::9]:1";proto=https;host=a.example')
    assert environ['REMOTE_ADDR'] == '2001:db8::9'
    assert environ['wsgi.url_scheme'] == 'https'
    assert environ['HTTP_HOST'] == 'a.example'


def test_headers_of_the_other_kind_are_ignored() -> None:
    forwarded = {'forwarded': 'for=198.51.100.6;proto=https;host=evil.example'}
    x_forwarded = {
        'x_forwarded_for': '203.0.113.9',
        'x_forwarded_proto': 'https',
        'x_forwarded_host': 'a.example',
        'x_forwarded_prefix': '/zaqar',
    }
    untouched = told(X_FORWARDED)
    assert told(X_FORWARDED, **forwarded).items() >= untouched.items()
    assert told(FORWARDED, **x_forwarded).items() >= untouched.items()
    both = told(X_FORWARDED, **forwarded, **x_forwarded)
    assert both['REMOTE_ADDR'] == '203.0.113.9'
    assert both['HTTP_HOST'] == 'a.example'
    assert both[RECEIVED_HOST] == 'asked.example'
    assert both[PREFIX] == '/zaqar'


def test_no_prefix_names_another_host() -> None:
    for prefix in ('//evil.example', '//evil.example/', 'evil.example', '/a//b', '/\\evil.example'):
        assert PREFIX not in told(X_FORWARDED, x_forwarded_prefix=prefix)
    with pytest.raises(ConfigurationError, match='SCRIPT_NAME'):
        TransportDriver(cfg.ConfigOpts(), None, None, None, prefix='//evil.example/')


@pytest.mark.parametrize('kind', [X_FORWARDED, FORWARDED])
@pytest.mark.parametrize(('proto', 'scheme'), [('HTTPS', 'https'), ('javascript', 'http')])
def test_a_scheme_is_one_of_two(kind: str, proto: str, scheme: str) -> None:
    environ = told(kind, forwarded=f'proto={proto}', x_forwarded_proto=f'ftp, {proto}')
    assert environ['wsgi.url_scheme'] == scheme


@pytest.mark.parametrize('is_parsed', [False, True])
def test_nothing_is_believed_unless_the_configuration_says_so(is_parsed: bool) -> None:
    conf = cfg.ConfigOpts()
    conf([])
    seen: list[str] = []

    def app(environ: dict[str, Any], start_response: object) -> list[bytes]:
        seen.append(environ['REMOTE_ADDR'])
        return []

    trust_proxies(app, conf, X_FORWARDED)
    conf.set_override('enable_proxy_headers_parsing', is_parsed, group='oslo_middleware')
    environ = {'REMOTE_ADDR': PEER, 'HTTP_X_FORWARDED_FOR': '203.0.113.9'}
    trust_proxies(app, conf, X_FORWARDED)(environ, lambda *start: None)
    assert seen == ['203.0.113.9' if is_parsed else PEER]


BELIEVED = ('X-Forwarded-For', 'X-Forwarded-Proto', 'X-Forwarded-Host', 'X-Forwarded-Prefix')


@pytest.mark.parametrize('header', [*BELIEVED, 'Forwarded', 'Host'])
def test_the_sample_for_nginx_sets_or_clears_what_the_server_may_believe(header: str) -> None:
    sample = (ETC / 'nginx.conf.sample').read_text(encoding='utf-8')
    assert re.search(rf'^ *proxy_set_header {header} +\S+;', sample, re.MULTILINE)


@pytest.mark.parametrize('header', [*BELIEVED, 'Forwarded'])
def test_the_sample_for_haproxy_sets_or_clears_what_the_server_may_believe(header: str) -> None:
    sample = (ETC / 'haproxy.cfg.sample').read_text(encoding='utf-8')
    assert re.search(rf'^ *http-request (del|set)-header {header}\b', sample, re.MULTILINE)
