"""The networks that webhooks may go to.

A client chooses the address of a webhook, and the server connects to it from inside the operator's
network. So addresses that only the server's own machine or its cloud should reach are denied.
"""

from __future__ import annotations

import functools
import ipaddress
import socket
from collections.abc import Iterable, Iterator
from typing import NamedTuple

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

LOOPBACK = ('127.0.0.0/8', '::1/128')

ALWAYS_DENIED = {
    '0.0.0.0/8': 'this host',
    '::/128': 'this host',
    '169.254.0.0/16': 'link-local',
    'fe80::/10': 'link-local',
    'fec0::/10': 'site-local',
    '224.0.0.0/4': 'multicast',
    'ff00::/8': 'multicast',
    '240.0.0.0/4': 'reserved and broadcast',
    # Where clouds tell a machine its secrets, beside 169.254.169.254.
    '100.100.100.200/32': 'metadata service',
    '168.63.129.16/32': 'metadata service',
    '192.0.0.192/32': 'metadata service',
    'fd00:ec2::254/128': 'metadata service',
    'fd20:ce::254/128': 'metadata service',
}
"""Networks that are denied unless an option allows them, and what they are."""

_NAT64 = (ipaddress.ip_network('64:ff9b::/96'), ipaddress.ip_network('64:ff9b:1::/48'))
_COMPATIBLE = ipaddress.ip_network('::/96')
_LONGEST_NUMERIC_NAME = 3
_LAST_32_BITS = 0xFFFFFFFF

# Of equally long prefixes the last one decides.
_BUILT_IN, _ALLOWED, _DENIED = range(3)


class Rule(NamedTuple):
    """One network: whether webhooks may go there, and what it is."""

    network: Network
    strength: int
    meaning: str


class Networks:
    """Decides about addresses.

    The longest prefix that holds an address decides; of two equally long ones `denied` counts more
    than `allowed`, and that more than what is denied by default. Addresses in none are allowed.

    allowed, denied: networks in CIDR notation.
    loopback: whether loopback addresses are allowed by default.

    Raises `ValueError` for a text that is not a network.
    """

    def __init__(
        self,
        allowed: Iterable[str] = (),
        denied: Iterable[str] = (),
        *,
        loopback: bool = True,
    ) -> None:
        built_in = dict(ALWAYS_DENIED)
        if not loopback:
            built_in |= dict.fromkeys(LOOPBACK, 'loopback')
        self._rules = [
            *(Rule(_network(name), _BUILT_IN, meaning) for name, meaning in built_in.items()),
            *(Rule(_network(name), _ALLOWED, '') for name in allowed),
            *(Rule(_network(name), _DENIED, 'denied by the configuration') for name in denied),
        ]
        self.refusal = functools.lru_cache(maxsize=4096)(self._refusal)

    def _refusal(self, address: str) -> str | None:
        """Why webhooks may not go to `address`; None where they may.

        An IPv6 address that leads to an IPv4 one is judged as both.
        """
        for form in _forms(ipaddress.ip_address(address)):
            rule = self._rule_for(form)
            if rule is not None and rule.strength != _ALLOWED:
                return f'webhooks may not go to {address}: {rule.network} is {rule.meaning}'
        return None

    def _rule_for(self, address: Address) -> Rule | None:
        """The rule that decides about an address."""
        found = [rule for rule in self._rules if address in rule.network]
        return max(found, key=lambda rule: (rule.network.prefixlen, rule.strength), default=None)


def literal_address(host: str) -> str | None:
    """The address that `host` is, in the usual notation; None for a name.

    Systems take `127.1`, `0x7f.0.0.1` and `2130706433` for addresses too. Numbers of up to three
    digits pass for names, as in upstream's tests; they are refused when they are looked up.
    """
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    if host.isdecimal() and len(host) <= _LONGEST_NUMERIC_NAME:
        return None
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except (OSError, UnicodeError):
        return None


def _network(name: str) -> Network:
    return ipaddress.ip_network(name.strip(), strict=False)


def _forms(address: Address) -> Iterator[Address]:
    """The addresses that packets to `address` may reach."""
    if isinstance(address, ipaddress.IPv4Address):
        yield address
        return
    if address.scope_id is not None:
        address = ipaddress.IPv6Address(int(address))
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
        return
    yield address
    yield from _tunnelled(address)


def _tunnelled(address: ipaddress.IPv6Address) -> Iterator[ipaddress.IPv4Address]:
    """The IPv4 addresses that an IPv6 address leads to: NAT64, 6to4, Teredo, IPv4-compatible."""
    embedded = ipaddress.IPv4Address(int(address) & _LAST_32_BITS)
    is_compatible = address in _COMPATIBLE and not (address.is_loopback or address.is_unspecified)
    if is_compatible or any(address in network for network in _NAT64):
        yield embedded
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
