"""The tables, and how files of older versions become files of this one.

queues          names of queues and topics with their metadata (management)
spools          where the messages of a named queue lie; made by its first message, unmapped
                when the queue is deleted, never reused
doomed_spools   unmapped spools whose rows are still to be removed, a few at a time
messages        `id` grows in the order of commits over all processes and is never reused;
                `claim` is the claim that holds the message, whether it has expired or not;
                with `encrypted` the body is a JSON text with what the server made of it
receipts        what posts with an id of the client's were answered, `first` to `last`
epochs          the ids from `first` on were given since the file was opened once more; see `epochs`
claims          leases; a message is claimed while its claim's `expires` lies ahead

Times are seconds since the epoch, bodies and metadata JSON. A project of None is ''.

Each message is in exactly one of `messages_free` and, by its claim, `messages_held`: listing and
claiming walk the free ones, however many are held.
"""

from __future__ import annotations

import sqlite3

# 'zqgv' in ASCII, so that another application's file is not taken for one of ours.
APPLICATION_ID = 0x7A716776

_VERSION_1 = (
    """CREATE TABLE queues (
        project TEXT NOT NULL,
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        metadata TEXT NOT NULL,
        PRIMARY KEY (project, kind, name)
    ) WITHOUT ROWID""",
    """CREATE TABLE spools (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        project TEXT NOT NULL,
        name TEXT NOT NULL,
        UNIQUE (project, name)
    )""",
    'CREATE TABLE doomed_spools (id INTEGER PRIMARY KEY)',
    """CREATE TABLE messages (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        spool INTEGER NOT NULL,
        claim INTEGER,
        claim_count INTEGER NOT NULL DEFAULT 0,
        ttl INTEGER NOT NULL,
        created REAL NOT NULL,
        expires REAL NOT NULL,
        delayed_until REAL NOT NULL,
        client BLOB,
        checksum TEXT,
        body TEXT NOT NULL
    )""",
    'CREATE INDEX messages_free ON messages (spool) WHERE claim IS NULL',
    'CREATE INDEX messages_held ON messages (claim) WHERE claim IS NOT NULL',
    'CREATE INDEX messages_held_in_order ON messages (spool) WHERE claim IS NOT NULL',
    'CREATE INDEX messages_expiry ON messages (expires, spool)',
    """CREATE TABLE claims (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        spool INTEGER NOT NULL,
        token TEXT NOT NULL UNIQUE,
        ttl INTEGER NOT NULL,
        expires REAL NOT NULL
    )""",
    'CREATE INDEX claims_expiry ON claims (expires)',
    'CREATE INDEX claims_of_spool ON claims (spool, expires)',
    """CREATE TABLE subscriptions (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        project TEXT NOT NULL,
        source TEXT NOT NULL,
        subscriber TEXT NOT NULL,
        ttl INTEGER NOT NULL,
        created REAL NOT NULL,
        expires REAL NOT NULL,
        confirmed INTEGER NOT NULL DEFAULT 0,
        options TEXT NOT NULL,
        UNIQUE (project, source, subscriber)
    )""",
    'CREATE INDEX subscriptions_of_source ON subscriptions (project, source)',
    'CREATE INDEX subscriptions_expiry ON subscriptions (expires)',
    """CREATE TABLE pools (
        name TEXT NOT NULL PRIMARY KEY,
        uri TEXT NOT NULL UNIQUE,
        weight INTEGER NOT NULL,
        flavor TEXT,
        options TEXT NOT NULL
    ) WITHOUT ROWID""",
    'CREATE INDEX pools_of_flavor ON pools (flavor)',
    """CREATE TABLE flavors (
        project TEXT NOT NULL,
        name TEXT NOT NULL,
        capabilities TEXT NOT NULL,
        PRIMARY KEY (project, name)
    ) WITHOUT ROWID""",
    """CREATE TABLE catalogue (
        project TEXT NOT NULL,
        queue TEXT NOT NULL,
        pool TEXT NOT NULL,
        PRIMARY KEY (project, queue)
    ) WITHOUT ROWID""",
)

_VERSION_2 = (
    """CREATE TABLE receipts (
        spool INTEGER NOT NULL,
        post_id TEXT NOT NULL,
        first INTEGER NOT NULL,
        last INTEGER NOT NULL,
        expires REAL NOT NULL,
        PRIMARY KEY (spool, post_id)
    ) WITHOUT ROWID""",
    'CREATE INDEX receipts_expiry ON receipts (expires)',
)

# Before, nothing said which bodies were encrypted. All those were base64 texts of two or more
# blocks of 16 bytes. A plain body that looks so cannot be decrypted and is given out as it is.
_VERSION_3 = (
    'ALTER TABLE messages ADD COLUMN encrypted INTEGER NOT NULL DEFAULT 0',
    """UPDATE messages SET encrypted = 1
        WHERE length(body) >= 46 AND length(body) % 4 = 2
        AND ((length(body) - 2) / 4 * 3 - length(body) + length(replace(body, '=', ''))) % 16 = 0
        AND body GLOB '"*"' AND body NOT GLOB '"*[^A-Za-z0-9+/=]*"'""",
)

_VERSION_4 = (
    'CREATE TABLE epochs (first INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)',
    'INSERT INTO epochs (first, name) VALUES (1, lower(hex(randomblob(4))))',
)

MIGRATIONS = (_VERSION_1, _VERSION_2, _VERSION_3, _VERSION_4)
"""The statements that lead from each version to the next."""


class UnknownFormat(Exception):
    """The file is not one that this version of the store can work with."""


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the file to the current version, in one transaction; raise `UnknownFormat`."""
    if check_version(connection) == len(MIGRATIONS):
        return
    connection.execute('BEGIN IMMEDIATE')
    try:
        # Another process may have migrated the file before this one got the lock.
        for statements in MIGRATIONS[check_version(connection) :]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f'PRAGMA application_id = {APPLICATION_ID}')
        connection.execute(f'PRAGMA user_version = {len(MIGRATIONS)}')
        connection.execute('COMMIT')
    except BaseException:
        if connection.in_transaction:
            connection.execute('ROLLBACK')
        raise


def check_version(connection: sqlite3.Connection) -> int:
    """The version of the file; raises `UnknownFormat`."""
    version = int(connection.execute('PRAGMA user_version').fetchone()[0])
    application = connection.execute('PRAGMA application_id').fetchone()[0]
    tables = connection.execute('SELECT count(*) FROM sqlite_master').fetchone()[0]
    if application != APPLICATION_ID and (tables or version or application):
        raise UnknownFormat('it is an SQLite database of another application')
    if version > len(MIGRATIONS):
        raise UnknownFormat(
            f'it has the format version {version}; this program knows up to {len(MIGRATIONS)}'
        )
    return version
