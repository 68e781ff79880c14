"""Which addresses webhooks may go to."""

from __future__ import annotations

import pytest

from zaqar_gevent.api.networks import Networks, literal_address

METADATA = '169.254.169.254'


def is_allowed(networks: Networks, address: str) -> bool:
    return networks.refusal(address) is None


@pytest.mark.parametrize(
    'address',
    [
        *('0.0.0.0', '0.1.2.3', METADATA, '169.254.0.1', '224.0.0.1', '239.255.255.255'),
        *('240.0.0.1', '255.255.255.255', '100.100.100.200', '168.63.129.16', '192.0.0.192'),
        *('::', 'fe80::1', 'fe80::1%lo', 'fec0::1', 'ff02::1', 'fd00:ec2::254', 'fd20:ce::254'),
        # The same in other clothes: mapped, compatible, NAT64, 6to4, Teredo.
        *(f'::ffff:{METADATA}', f'::{METADATA}', f'64:ff9b::{METADATA}', '64:ff9b:1::a9fe:a9fe'),
        *('2002:a9fe:a9fe::1', '2001:0:4136:e378:8000:63bf:5601:5601'),
    ],
)
@pytest.mark.parametrize('loopback', [True, False])
def test_what_only_the_machine_or_its_cloud_should_reach_is_denied(
    address: str, loopback: bool
) -> None:
    refusal = Networks(loopback=loopback).refusal(address)
    assert refusal is not None
    assert address in refusal


@pytest.mark.parametrize(
    'address',
    [
        *('127.0.0.1', '127.255.255.254', '::1', '::ffff:127.0.0.1', '::ffff:7f00:1'),
        *('64:ff9b::7f00:1', '2002:7f00:1::', '2001:0:808:808:0:0:80ff:fffe'),
    ],
)
def test_loopback_is_allowed_or_denied_in_every_form(address: str) -> None:
    assert is_allowed(Networks(loopback=True), address)
    assert not is_allowed(Networks(loopback=False), address)


@pytest.mark.parametrize(
    'address',
    [
        *('8.8.8.8', '10.0.0.1', '172.16.0.1', '192.168.0.1', '100.64.0.1', '2606:4700::1111'),
        *('fc00::1', 'fd00:ec2::253', '64:ff9b::8.8.8.8', '2002:808:808::1', '::ffff:10.1.2.3'),
    ],
)
def test_public_and_private_addresses_are_allowed(address: str) -> None:
    assert is_allowed(Networks(loopback=False), address)


def test_private_networks_can_be_denied() -> None:
    networks = Networks(denied=['10.0.0.0/8', 'fc00::/7'])
    for address in ('10.1.2.3', '::ffff:10.1.2.3', '64:ff9b::a01:203', '2002:a01:203::', 'fd12::1'):
        assert not is_allowed(networks, address)
    assert is_allowed(networks, '11.0.0.1')


def test_the_longest_prefix_decides() -> None:
    networks = Networks(allowed=['10.1.0.0/16', '0.0.0.0/0'], denied=['10.0.0.0/8', '10.1.1.0/24'])
    assert not is_allowed(networks, '10.2.0.1')
    assert is_allowed(networks, '10.1.0.1')
    assert not is_allowed(networks, '10.1.1.1')
    # What is always denied is longer than everything.
    assert not is_allowed(networks, METADATA)


def test_only_some_networks_can_be_allowed() -> None:
    networks = Networks(allowed=['192.0.2.0/24', '2001:db8::/32'], denied=['0.0.0.0/0', '::/0'])
    assert is_allowed(networks, '192.0.2.7')
    assert is_allowed(networks, '2001:db8::7')
    for address in ('192.0.3.7', '10.0.0.1', '2001:db9::7', '127.0.0.1'):
        assert not is_allowed(networks, address)


def test_what_is_always_denied_can_be_allowed_by_name() -> None:
    networks = Networks(allowed=['127.0.0.0/8', METADATA], loopback=False)
    assert is_allowed(networks, '127.0.0.1')
    assert is_allowed(networks, METADATA)
    assert not is_allowed(networks, '169.254.0.1')
    assert not is_allowed(networks, '::1')


def test_denied_counts_more_than_allowed() -> None:
    networks = Networks(allowed=['10.0.0.0/8'], denied=['10.0.0.0/8'])
    assert not is_allowed(networks, '10.0.0.1')


@pytest.mark.parametrize('wrong', ['10.0.0.0/33', 'example.com', ''])
def test_what_is_no_network_is_told(wrong: str) -> None:
    with pytest.raises(ValueError, match='does not appear to be'):
        Networks(denied=[wrong])


@pytest.mark.parametrize(
    ('host', 'address'),
    [
        ('127.0.0.1', '127.0.0.1'),
        ('127.1', '127.0.0.1'),
        ('2130706433', '127.0.0.1'),
        ('0x7f.0.0.1', '127.0.0.1'),
        ('0177.0.0.1', '127.0.0.1'),
        ('::1', '::1'),
        ('::ffff:7f00:1', '::ffff:7f00:1'),
        ('example.com', None),
        ('localhost', None),
        ('1', None),
    ],
)
def test_addresses_are_recognised_in_all_notations(host: str, address: str | None) -> None:
    assert literal_address(host) == address
