"""The keys in Redis: upstream's, and our own beside them.

No name of a queue has a colon, so a key with a colon behind its first dot is of our own: upstream
never reads it, and it is of no use without upstream's keys.
"""

from __future__ import annotations

INDEX = 'msgset_index'
"""Names the keys of the messages of all queues."""


def queue(name: str, project: str | None) -> str:
    """Metadata of a queue, and its member in the names of queues."""
    return f'{project or ""}.{name}'


def queues(project: str | None) -> str:
    """Names of queues."""
    return f'{project or ""}.queues_set'


def topics(project: str | None) -> str:
    """Names of topics; their members are those of queues. Our own."""
    return f'{project or ""}.:topics'


TOPIC = ':topic'
"""The suffix of a topic's key. Our own."""


def messages(name: str, project: str | None) -> str:
    """Ids of the messages of a queue, by rank."""
    return f'{project or ""}.{name}.messages'


DELAYED = '.delayed'
"""What the key of the messages that are not due yet has behind that of the others; by when they
are due. Also of this project's corrections of upstream's driver."""


def rank_counter(name: str, project: str | None) -> str:
    """The next rank."""
    return f'{project or ""}.{name}.rank_counter'


def claims(name: str, project: str | None) -> str:
    """Ids of the claims of a queue, by when they expire."""
    return f'{project or ""}.{name}.claims'


def by_posting(name: str, project: str | None) -> str:
    """Ids of the delayed messages of a queue, by their ranks without it. Our own."""
    return f'{project or ""}.{name}:delayed'


def head(name: str, project: str | None) -> str:
    """Where the first free message of a queue may be. Our own."""
    return f'{project or ""}.{name}:head'


CLAIMED = 'messages.'
"""The prefix of the key of a claim's messages."""


def subscriptions(name: str, project: str | None) -> str:
    """Ids of the subscriptions of a queue."""
    return f'{project or ""}.{name}.subscriptions'


def receipt(name: str, project: str | None, post_id: str) -> str:
    """The key of the answer to a post with this id. Our own."""
    return f'{project or ""}.{name}:post:{post_id}'


def receipts(name: str, project: str | None) -> str:
    """What the keys of all receipts of a queue begin with."""
    return receipt(name, project, '')


def posts(name: str, project: str | None) -> str:
    """A token that goes with the queue, where its name is on another server. Our own."""
    return f'{project or ""}.{name}:posts'


def doomed(name: str, project: str | None, kind: str, token: str) -> str:
    """Messages or claims of a queue that is gone, until they are deleted. Our own."""
    return f'{project or ""}.{name}:{kind}:{token}'


def copied(name: str, project: str | None) -> str:
    """Ids in another store of the messages that were copied from there. Our own."""
    return f'{project or ""}.{name}:copied'


def arrival(name: str, project: str | None) -> str:
    """The key of how ids that came with the queue from another pool are mapped. Our own."""
    return f'{project or ""}.{name}:arrival'


def mark(name: str, project: str | None) -> str:
    """What says that the queue is not used from here, see `storage.moves`. Our own."""
    return f'{project or ""}.{name}:mark'


def carried(name: str, project: str | None) -> str:
    """The key of answers to posts with an id before the queue was moved here. Our own."""
    return f'{project or ""}.{name}:carried'


REDRIVES_DUE = '.:redrives_due'
"""Keys of the redrives of all queues that run, by when their next steps are due. Our own."""

REDRIVE_NUMBERS = '.:redrive_numbers'
"""The number of the last redrive. Our own."""


def project_bytes(project: str | None) -> tuple[str, str]:
    """Bytes of a project's messages by the second in which they expire; these seconds. Our own."""
    return f'{project or ""}.:bytes', f'{project or ""}.:bytes_ends'


def project_subscriptions(project: str | None) -> str:
    """Ids of all subscriptions of a project, by when they expire. Our own."""
    return f'{project or ""}.:subscriptions'


def running_redrives(project: str | None) -> str:
    """Keys of the redrives of a project that run. Our own."""
    return f'{project or ""}.:redrives'


def redrives(name: str, project: str | None) -> str:
    """Ids of the redrives of a queue, by number. Our own."""
    return f'{project or ""}.{name}:redrives'


def redrive(name: str, project: str | None, redrive_id: str) -> str:
    """One redrive. Our own."""
    return f'{project or ""}.{name}:redrive:{redrive_id}'
