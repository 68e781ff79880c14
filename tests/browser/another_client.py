"""Another client of the project that a page shows."""

from __future__ import annotations

import uuid
from typing import Any

from tests.callers import Answer, Identity, connect


class AnotherClient:
    """Somebody else in a project, over REST."""

    def __init__(self, url: str, project: str) -> None:
        self._caller = connect('rest', url, '', Identity(project, str(uuid.uuid4())))

    def call(self, action: str, **arguments: Any) -> Answer:
        answer: Answer = self._caller.call(action, **arguments)
        return answer

    def post(self, name: str, *bodies: Any, kind: str = 'queue') -> None:
        """Post messages to a queue, or to a topic."""
        messages = [{'body': body, 'ttl': 600} for body in bodies]
        action = 'message_post' if kind == 'queue' else 'topic_message_post'
        assert self.call(action, messages=messages, **{f'{kind}_name': name}).status == 201

    def bodies(self, queue_name: str) -> list[Any]:
        """The bodies of the messages that are in a queue, claimed or not."""
        asked = {'echo': True, 'include_claimed': True}
        found = self.call('message_list', queue_name=queue_name, **asked)
        return [message['body'] for message in found.body['messages']]

    def metadata(self, queue_name: str) -> Any:
        return self.call('queue_get', queue_name=queue_name).body
