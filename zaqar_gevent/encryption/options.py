"""The options `[encryption]`, and the ciphers that they and upstream's options amount to."""

from __future__ import annotations

from collections.abc import Sequence

from oslo_config import cfg, types

from zaqar_gevent.encryption import formats
from zaqar_gevent.encryption.authenticated import AuthenticatedFormat
from zaqar_gevent.encryption.bodies import BodyCipher
from zaqar_gevent.encryption.upstream import UpstreamFormat

GROUP = 'encryption'
MIN_KEY_LENGTH = 16

_CHOICES = [
    (formats.AUTHENTICATED, 'AES-256-GCM: authenticated, bound to project and queue'),
    (formats.UPSTREAM, "AES-256-CBC, as upstream's servers write and read it"),
]

ALL_OPTS: list[cfg.Opt] = [
    cfg.StrOpt(
        'write_format',
        default=formats.AUTHENTICATED,
        choices=_CHOICES,
        help='The format in which the bodies of messages are stored that are posted to queues '
        'with _enable_encrypt_messages. Use upstream while an upstream server reads the same '
        'store.',
    ),
    cfg.ListOpt(
        'read_formats',
        item_type=types.String(choices=formats.NAMES),
        default=list(formats.NAMES),
        help='The formats that are decrypted, separated by commas: aes-gcm, upstream. '
        'write_format must be one of them. Leave upstream out when no message in that format is '
        'left in the store: the format has no authentication.',
    ),
    cfg.ListOpt(
        'keys',
        default=[],
        secret=True,
        help='Keys for message bodies, separated by commas. The first one encrypts and must have '
        f'at least {MIN_KEY_LENGTH} characters; all of them decrypt, so put a new key in front of '
        'the old ones. Make one with: openssl rand -hex 32. The key [transport] '
        'message_encryption_key counts as the last one; write_format = upstream encrypts with '
        'that one. By default it is the only key.',
    ),
]

# Upstream's default, with which everybody can decrypt.
_PUBLIC_KEY = 'AES256'


class BadEncryptionOptions(cfg.ConfigFileValueError):
    """The options of encryption contradict each other."""


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """The options by group, for `oslo.config.opts`."""
    return [(GROUP, ALL_OPTS)]


def build_cipher(conf: cfg.ConfigOpts) -> BodyCipher:
    """The cipher for bodies; raises `BadEncryptionOptions`."""
    section, shared = conf[GROUP], conf.transport
    upstream_key: str = shared.message_encryption_key or ''
    _check_formats(section.write_format, section.read_formats, upstream_key)
    _check_keys(section['keys'])
    _check_algorithm(shared.message_encryption_algorithms)
    last = [upstream_key] if upstream_key else []
    keys_of = {
        formats.AUTHENTICATED: list(dict.fromkeys([*section['keys'], *last])),
        formats.UPSTREAM: list(dict.fromkeys([*last, *section['keys']])),
    }
    if not keys_of[section.write_format]:
        return BodyCipher(None, [])
    made: dict[str, formats.Format] = {
        formats.AUTHENTICATED: AuthenticatedFormat(keys_of[formats.AUTHENTICATED]),
        formats.UPSTREAM: UpstreamFormat(keys_of[formats.UPSTREAM]),
    }
    return BodyCipher(
        made[section.write_format],
        [made[name] for name in formats.NAMES if name in section.read_formats],
        has_public_key=keys_of[section.write_format][0] == _PUBLIC_KEY,
    )


def _check_formats(write_format: str, read_formats: Sequence[str], upstream_key: str) -> None:
    if write_format not in read_formats:
        raise BadEncryptionOptions(
            f'[{GROUP}] read_formats ({", ".join(read_formats) or "empty"}) must include '
            f'write_format ({write_format}): what is posted could not be read.'
        )
    if write_format == formats.UPSTREAM and not upstream_key:
        raise BadEncryptionOptions(
            f'[{GROUP}] write_format = upstream needs [transport] message_encryption_key, the key '
            "of upstream's servers."
        )


def _check_keys(keys: Sequence[str]) -> None:
    if len(set(keys)) != len(keys):
        raise BadEncryptionOptions(f'[{GROUP}] keys has the same key twice.')
    if not all(keys):
        raise BadEncryptionOptions(f'[{GROUP}] keys has an empty key: look for a stray comma.')
    if keys and len(keys[0]) < MIN_KEY_LENGTH:
        raise BadEncryptionOptions(
            f'The first key in [{GROUP}] keys must have at least {MIN_KEY_LENGTH} characters, not '
            f'{len(keys[0])}. Make one with: openssl rand -hex 32'
        )


def _check_algorithm(algorithm: str) -> None:
    if algorithm != 'AES256':
        raise BadEncryptionOptions(
            f'[transport] message_encryption_algorithms must be AES256, not {algorithm}.'
        )
