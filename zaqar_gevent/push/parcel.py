"""A message as it is pushed, written once for all subscribers that get it in the same form."""

from __future__ import annotations

from typing import Any

from zaqar_gevent.api import documents
from zaqar_gevent.push.tail import Entry

_MEMBERS = 5
_MSGPACK_MAP = 0x80


def opening(subscription_id: str, *, binary: bool) -> bytes:
    """The first members of a push of `zaqar.v2`, which differ between subscribers."""
    members = {'push': 'message', 'subscription_id': subscription_id}
    if binary:
        # A map of a few members is one byte, the number in it, and then they follow each other.
        return bytes([_MSGPACK_MAP | _MEMBERS]) + documents.encode_msgpack(members)[1:]
    return documents.encode_json(members)[:-1]


class Parcel:
    """One message of a queue, in whatever forms it is asked for."""

    def __init__(self, queue_name: str, entry: Entry) -> None:
        self.id = str(entry.message['id'])
        self.marker = entry.marker
        self._queue_name = queue_name
        self._message = entry.message
        self._forms: dict[tuple[bool, bool], bytes] = {}

    def default(self, *, binary: bool) -> bytes:
        """The push of the default envelope, upstream's."""
        form = (False, binary)
        if form not in self._forms:
            document = {
                'body': self._message['body'],
                'ttl': self._message['ttl'],
                'queue_name': self._queue_name,
                'Message_Type': 'Notification',
            }
            self._forms[form] = documents.encode(document, binary=binary)
        return self._forms[form]

    def closing(self, *, binary: bool) -> bytes:
        """All of a push of `zaqar.v2` behind its `opening`."""
        form = (True, binary)
        if form not in self._forms:
            rest: dict[str, Any] = {
                'queue_name': self._queue_name,
                'marker': self.marker,
                'message': self._message,
            }
            if binary:
                self._forms[form] = documents.encode_msgpack(rest)[1:]
            else:
                self._forms[form] = b',' + documents.encode_json(rest)[1:]
        return self._forms[form]
