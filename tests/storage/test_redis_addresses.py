"""The URIs of Redis, and what its errors mean."""

from __future__ import annotations

import pytest
from zaqar.common import errors

from zaqar_gevent.storage.redis.addresses import Address, Credentials, find_ignored, parse
from zaqar_gevent.storage.redis.outage import Meaning, read_error

ADDRESSES = {
    'redis://example.com': Address((('example.com', 6379),)),
    'redis://example.com:7777?dbid=5&socket_timeout=0.5': Address(
        (('example.com', 7777),), database=5, timeout=0.5
    ),
    'redis://:p%40ss@example.com': Address(
        (('example.com', 6379),), credentials=Credentials(None, 'p@ss')
    ),
    'rediss://me:secret@[::1]:1': Address(
        (('::1', 1),), is_secure=True, credentials=Credentials('me', 'secret')
    ),
    'redis://m%3Ae:a%40b%3Ac%2Fd%25@example.com': Address(
        (('example.com', 6379),), credentials=Credentials('m:e', 'a@b:c/d%')
    ),
    'redis:///tmp/redis.sock?dbid=1': Address((), path='/tmp/redis.sock', database=1),
    'redis://:secret@/tmp/redis.sock': Address(
        (), path='/tmp/redis.sock', credentials=Credentials(None, 'secret')
    ),
    'redis://s1,s2:7?master=m&sentinel_username=u&sentinel_password=p': Address(
        (('s1', 26379), ('s2', 7)), master='m', sentinel_credentials=Credentials('u', 'p')
    ),
}


@pytest.mark.parametrize('uri', ADDRESSES)
def test_uris_are_understood(uri: str) -> None:
    assert parse(uri) == ADDRESSES[uri]


@pytest.mark.parametrize(
    'uri',
    [
        'red://example.com',
        'redis://',
        'redis:',
        'redis://example.com:not_an_integer',
        'redis://s1:not_an_integer,s2?master=obi-wan',
        'redis://s1,s2',
        'redis://user@example.com',
        'redis://?master=m',
        'redis://example.com?dbid=x',
        'redis://example.com?socket_timeout=0',
        'redis://[',
    ],
)
def test_other_uris_are_refused(uri: str) -> None:
    with pytest.raises(errors.ConfigurationError):
        parse(uri)


def test_an_address_is_told_without_credentials() -> None:
    assert str(parse('rediss://me:secret@h:1')) == 'rediss://h:1'
    assert str(parse('redis://:a%40b%3Ac%2Fd@h')) == 'redis://h:6379'
    assert str(parse('redis://:secret@a,b?master=m')) == 'redis://a:26379,b:26379?master=m'


@pytest.mark.parametrize(
    ('uri', 'told'),
    [
        ('redis://:secret@example.com/5', ['add dbid=5 to its options']),
        ('redis://:secret@example.com/5?dbid=4', ['database 4 is used; for database 5 add dbid=5']),
        ('redis://example.com/name', ['database 0 is used.']),
        ('redis://example.com?db=secret', ["'db' in the URI of Redis at redis://example.com:6379"]),
        ('redis://a,b/1?master=m&timeout=secret&', ['dbid=1', "'timeout'"]),
    ],
)
def test_parts_of_uris_without_effect_are_told(uri: str, told: list[str]) -> None:
    found = find_ignored(uri)
    for text, sentence in zip(told, found, strict=True):
        assert text in sentence
        assert 'secret' not in sentence


@pytest.mark.parametrize(
    'uri',
    [
        'redis://example.com',
        'redis://example.com/',
        'redis://example.com/0',
        'redis://example.com/5?dbid=5&socket_timeout=1',
        'redis:///tmp/redis.sock?dbid=1',
        'redis://a/?master=m&sentinel_username=u&sentinel_password=p',
    ],
)
def test_parts_of_uris_with_effect_are_not_told(uri: str) -> None:
    assert find_ignored(uri) == []


@pytest.mark.parametrize(
    ('text', 'meaning', 'reason'),
    [
        ('NOSCRIPT No matching script.', Meaning.UNKNOWN_SCRIPT, ''),
        ('LOADING Redis is loading the dataset in memory', Meaning.NOT_NOW, 'loading'),
        ("READONLY You can't write against a read only replica.", Meaning.WRONG_SERVER, 'replica'),
        (
            'ERR Error running script (call to f_c0): @user_script:9: @user_script: 9: '
            "-READONLY You can't write against a read only replica.",
            Meaning.WRONG_SERVER,
            'replica',
        ),
        (
            'ERR Error running script (call to f_c0): @user_script:9: @user_script: 9: '
            "-OOM command not allowed when used memory > 'maxmemory'.",
            Meaning.REFUSED,
            'out of memory',
        ),
        (
            "OOM command not allowed when used memory > 'maxmemory'. script: c0.",
            Meaning.REFUSED,
            'out of memory',
        ),
        ('MOVED 3999 127.0.0.1:6381', Meaning.REFUSED, 'Cluster'),
        (
            "ERR unknown command 'EVALSHA', with args beginning with: 'c0' '1' 'shop.x-OOM' ",
            Meaning.REFUSED,
            "unknown command 'EVALSHA'",
        ),
        ('ERR unknown command `FOO`', Meaning.REFUSED, 'unknown command'),
    ],
)
def test_errors_are_understood(text: str, meaning: Meaning, reason: str) -> None:
    found, told = read_error(text)
    assert found is meaning
    assert reason in told
    assert 'shop' not in told
