"""The store keeps with each message whether its body is encrypted: such a body is bytes."""

import base64
import json

import pytest

from tests.unit.encryption.values import UpstreamFormat
from tests.unit.storage.conftest import file_of_format

# Plain bodies that look encrypted, in the document of a message or by themselves.
TRICKY = [
    {'body': 'x', 'encrypted': True},
    ',"encrypted":true',
    {'a': 1, 'b': {'c': 2, 'encrypted': True}},
    'zgev1.AAAA',
    base64.b64encode(bytes(48)).decode(),
]
MIXED = ['plain', b'zgev1.encrypted', {'sku': 42}, b'AAAA', *TRICKY]


def bodies_of(messages):
    return [message['body'] for message in messages]


@pytest.fixture
def mixed(store):
    store.post(*MIXED)
    return store


@pytest.mark.parametrize('bodies', [MIXED, TRICKY], ids=['mixed', 'plain'])
def test_bytes_are_given_back_as_bytes_and_text_as_text(store, bodies):
    ids = store.post(*bodies)
    assert store.bodies() == bodies
    assert bodies_of(store.messages.bulk_get('q', ids)) == bodies
    assert [store.messages.get('q', one)['body'] for one in ids] == bodies
    claim_id, claimed = store.claim(limit=20)
    assert bodies_of(claimed) == bodies
    assert bodies_of(store.claims.get('q', claim_id)[1]) == bodies
    assert store.bodies(include_claimed=True) == bodies
    store.claims.delete('q', claim_id)
    assert bodies_of(store.messages.pop('q', 20)) == bodies


def test_what_is_popped_and_put_back_stays_encrypted(mixed):
    popped = mixed.messages.pop('q', 20)
    mixed.messages.restore('q', popped)
    assert mixed.bodies() == MIXED


def test_messages_have_no_members_that_others_have_not(mixed):
    members = {tuple(message) for message in mixed.list()}
    assert members == {('id', 'age', 'ttl', 'claim_count', 'claim_id', 'body')}


def test_a_dead_letter_stays_encrypted(mixed, clock):
    mixed.queues.set_metadata('q', {'_max_claim_count': 1, '_dead_letter_queue': 'dead'})
    mixed.queues.create('dead')
    mixed.claim(limit=20)
    clock.advance(61)
    assert mixed.claim(limit=20) == (None, [])
    assert mixed.bodies('dead') == MIXED


def make_old_file(path, bodies):
    """A file of version 2, which did not say what is encrypted."""
    with file_of_format(path, 2) as file:
        file.execute("INSERT INTO queues VALUES ('', 'queue', 'q', '{}')")
        file.execute("INSERT INTO spools (id, project, name) VALUES (1, '', 'q')")
        file.executemany(
            """INSERT INTO messages (spool, ttl, created, expires, delayed_until, body)
                VALUES (1, 300, 0, 9e9, 0, ?)""",
            [(body,) for body in bodies],
        )


def test_of_an_older_file_what_looks_encrypted_counts_as_encrypted(tmp_path, open_store):
    """Whether it is, decrypting it tells; whatever else is plain for good."""
    upstream = UpstreamFormat(['key'])
    encrypted = [upstream.encrypt('x' * length, 'p', 'q') for length in (0, 15, 16, 40, 1000)]
    plain = [
        'plain',
        '',
        'x' * 44,
        'A' * 44,
        encrypted[0].decode()[:-4],
        encrypted[0].decode() + '!',
        '"' + encrypted[0].decode() + '"',
        [encrypted[0].decode()],
        base64.b64encode(bytes(16)).decode(),
        base64.b64encode(bytes(33)).decode(),
        7,
        None,
    ]
    texts = [body.decode() for body in encrypted]
    make_old_file(tmp_path / 'store.db', [json.dumps(body) for body in (*texts, *plain)])
    store = open_store()
    found = store.bodies(limit=100)
    assert found[: len(encrypted)] == encrypted
    assert found[len(encrypted) :] == plain
    store.post('new', b'new')
    assert store.bodies(limit=100)[-2:] == ['new', b'new']
