"""What operations work with: the stores, the limits, the defaults, the encryptor."""

from __future__ import annotations

from typing import Any

from oslo_config import cfg
from zaqar.storage import base
from zaqar.transport import validation
from zaqar.transport.base import ResourceDefaults

from zaqar_gevent.api import errors
from zaqar_gevent.api.encryption import DecryptionFailed, MessageCipher


class Broker:
    """One set of stores and the rules that hold for what is kept in them.

    messages, claims, subscriptions: the store's controllers (`zaqar.storage.base`).
    limits: upstream's validator, which knows the operator's `[transport]` options.
    defaults: what `[transport]` says of times to live.
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        storage: base.DataDriverBase,
        control: base.ControlDriverBase,
    ) -> None:
        self.conf = conf
        self.storage = storage
        self.control = control
        self.limits = validation.Validator(conf)
        self.defaults = ResourceDefaults(conf)
        self._cipher: MessageCipher | None = None

    @property
    def messages(self) -> Any:
        return self.storage.message_controller

    @property
    def claims(self) -> Any:
        return self.storage.claim_controller

    @property
    def subscriptions(self) -> Any:
        return self.storage.subscription_controller

    def limit(self, name: str) -> Any:
        """The value of the `[transport]` option `name`."""
        return self.limits.get_limit_conf_value(name)

    def encrypt(self, messages: list[dict[str, Any]]) -> None:
        """Replace the bodies of `messages` by their ciphertext."""
        self._get_cipher().encrypt(messages)

    def decrypt(self, messages: list[dict[str, Any]]) -> None:
        """Replace the ciphertexts in `messages` by what was posted."""
        try:
            self._get_cipher().decrypt(messages)
        except DecryptionFailed:
            raise errors.ServiceUnavailable(
                'A message of this queue was encrypted with another key than the one configured.'
            ) from None

    def _get_cipher(self) -> MessageCipher:
        if self._cipher is None:
            key = self.limit('message_encryption_key')
            if not key or self.limit('message_encryption_algorithms') != 'AES256':
                raise errors.ServiceUnavailable(
                    'Encrypted queues need message_encryption_algorithms = AES256 and a '
                    'message_encryption_key in the [transport] section of the server configuration.'
                )
            self._cipher = MessageCipher(key)
        return self._cipher
