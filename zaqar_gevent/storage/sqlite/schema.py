"""The tables, and how files of older versions become files of this one.

queues          names of queues and topics with their metadata (management)
spools          where the messages of a named queue lie; made by its first message, unmapped
                when the queue is deleted, never reused
doomed_spools   unmapped spools whose rows are still to be removed, a few at a time
messages        `id` grows in the order of commits over all processes and is never reused;
                `position` is the message's place in its queue: the id, or `placed` for a message
                that was delayed, which is the next number of the same sequence when it becomes
                visible for the first time. A message that is hidden again keeps its position;
                `delayed_until` is 0 unless the message is hidden until then;
                `claim` is the claim that holds the message, whether it has expired or not;
                `body` is encoded as the number in `encrypted` says: 0 JSON, 2 MsgPack; with 1
                it is a JSON text with what the server made of the body to encrypt it. It is
                text in rows of older versions, and a BLOB in all others;
                `passed` names the queues that a delayed message came through by webhooks
delays          the spools with delayed messages; at `due` or later the next one is due
receipts        what posts with an id of the client's were answered, `first` to `last`
epochs          the ids from `first` on were given since the file was opened once more; see `epochs`
claims          leases; a message is claimed while its claim's `expires` lies ahead. A claim is
                deleted before its messages are freed
endings         of each spool and second, how many messages expire then and how many are held by
                claims that expire then; see `tallies`
tallied         the one row has the id up to which messages are counted in `spools` and `endings`
changes         what has to be added to these counts since

Times are seconds since the epoch, bodies and metadata JSON. A project of None is ''.

Each message is in exactly one of `messages_free`, `messages_delayed` and, by its claim,
`messages_held`: listing and claiming walk the free ones, however many are delayed or held.
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

# A message whose delay is over has been seen at its place, which it keeps.
_DELAYS = (
    'ALTER TABLE messages ADD COLUMN placed INTEGER',
    'ALTER TABLE messages ADD COLUMN position INTEGER AS (ifnull(placed, id)) VIRTUAL',
    'ALTER TABLE messages ADD COLUMN passed TEXT',
    """UPDATE messages SET delayed_until = 0 WHERE delayed_until != 0
        AND (claim IS NOT NULL OR delayed_until <= (julianday('now') - 2440587.5) * 86400.0)""",
    'DROP INDEX messages_free',
    'DROP INDEX messages_held_in_order',
    """CREATE INDEX messages_free ON messages (spool, position)
        WHERE claim IS NULL AND delayed_until = 0""",
    'CREATE INDEX messages_held_in_order ON messages (spool, position) WHERE claim IS NOT NULL',
    'CREATE INDEX messages_delayed ON messages (spool, position) WHERE delayed_until > 0',
    'CREATE INDEX messages_due ON messages (spool, delayed_until) WHERE delayed_until > 0',
    'CREATE TABLE delays (spool INTEGER PRIMARY KEY, due REAL NOT NULL)',
    'CREATE INDEX delays_due ON delays (due)',
    """INSERT INTO delays (spool, due)
        SELECT spool, min(delayed_until) FROM messages WHERE delayed_until > 0 GROUP BY spool""",
)

SECOND = '(CAST({time} AS INTEGER) + ({time} > CAST({time} AS INTEGER)))'
"""SQL for the first whole second that is not before a time; to be formatted with it."""

_CHANGE = 'INSERT INTO changes (spool, expiring, expires_at, freed, frees_at)'

CHANGES = 128
"""Changes that are kept until they are counted."""

# New messages are not counted by a trigger, which each post would have to pay for: see `tallies`.
# What is deleted is noted in `changes`: to change the counts themselves would cost more pages.
_TALLIES = (
    'ALTER TABLE spools ADD COLUMN total INTEGER NOT NULL DEFAULT 0',
    'ALTER TABLE spools ADD COLUMN held INTEGER NOT NULL DEFAULT 0',
    """CREATE TABLE endings (
        spool INTEGER NOT NULL,
        second INTEGER NOT NULL,
        expiring INTEGER NOT NULL DEFAULT 0,
        freed INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (spool, second)
    ) WITHOUT ROWID""",
    'CREATE INDEX endings_over ON endings (spool) WHERE expiring = 0 AND freed = 0',
    """CREATE TABLE changes (
        id INTEGER PRIMARY KEY,
        spool INTEGER NOT NULL,
        expiring INTEGER NOT NULL,
        expires_at INTEGER,
        freed INTEGER NOT NULL,
        frees_at INTEGER
    )""",
    'CREATE TABLE tallied (last INTEGER NOT NULL)',
    """INSERT INTO tallied (last)
        SELECT ifnull(max(seq), 0) FROM sqlite_sequence WHERE name = 'messages'""",
    f"""INSERT INTO endings (spool, second, expiring)
        SELECT spool, {SECOND.format(time='expires')}, count(*) FROM messages GROUP BY 1, 2""",
    f"""INSERT INTO endings (spool, second, freed)
        SELECT c.spool, {SECOND.format(time='c.expires')}, count(*)
        FROM claims c JOIN messages m ON m.claim = c.id GROUP BY 1, 2
        ON CONFLICT (spool, second) DO UPDATE SET freed = excluded.freed""",
    """UPDATE spools SET
        total = (SELECT ifnull(sum(expiring), 0) FROM endings WHERE spool = spools.id),
        held = (SELECT ifnull(sum(freed), 0) FROM endings WHERE spool = spools.id)""",
    f"""CREATE TRIGGER message_deleted AFTER DELETE ON messages
        WHEN OLD.claim IS NOT NULL OR OLD.id <= (SELECT last FROM tallied) BEGIN
        {_CHANGE}
        VALUES (
            OLD.spool,
            -(OLD.id <= (SELECT last FROM tallied)),
            {SECOND.format(time='OLD.expires')},
            -(OLD.claim IS NOT NULL),
            (SELECT {SECOND.format(time='expires')} FROM claims WHERE id = OLD.claim));
        END""",
    f"""CREATE TRIGGER message_prolonged AFTER UPDATE OF expires ON messages
        WHEN OLD.expires != NEW.expires AND OLD.id <= (SELECT last FROM tallied) BEGIN
        {_CHANGE} VALUES
            (OLD.spool, -1, {SECOND.format(time='OLD.expires')}, 0, NULL),
            (NEW.spool, 1, {SECOND.format(time='NEW.expires')}, 0, NULL);
        END""",
    f"""CREATE TRIGGER claim_prolonged AFTER UPDATE OF expires ON claims BEGIN
        {_CHANGE}
        SELECT OLD.spool, 0, NULL, -count(*), {SECOND.format(time='OLD.expires')}
        FROM messages WHERE claim = OLD.id;
        {_CHANGE}
        SELECT NEW.spool, 0, NULL, count(*), {SECOND.format(time='NEW.expires')}
        FROM messages WHERE claim = NEW.id;
        END""",
    f"""CREATE TRIGGER claim_deleted BEFORE DELETE ON claims BEGIN
        {_CHANGE}
        SELECT OLD.spool, 0, NULL, -count(*), {SECOND.format(time='OLD.expires')}
        FROM messages WHERE claim = OLD.id;
        END""",
    f"""CREATE TRIGGER changes_gathered AFTER INSERT ON changes WHEN NEW.id % {CHANGES} = 0 BEGIN
        INSERT INTO endings (spool, second, expiring)
            SELECT spool, expires_at, sum(expiring) AS sum FROM changes
            WHERE expires_at IS NOT NULL GROUP BY 1, 2 HAVING sum != 0
            ON CONFLICT (spool, second) DO UPDATE SET expiring = expiring + excluded.expiring;
        INSERT INTO endings (spool, second, freed)
            SELECT spool, frees_at, sum(freed) AS sum FROM changes
            WHERE frees_at IS NOT NULL GROUP BY 1, 2 HAVING sum != 0
            ON CONFLICT (spool, second) DO UPDATE SET freed = freed + excluded.freed;
        DELETE FROM endings WHERE expiring = 0 AND freed = 0;
        UPDATE spools SET total = total + c.expiring, held = held + c.freed
            FROM (SELECT spool, sum(expiring) AS expiring, sum(freed) AS freed
                FROM changes GROUP BY spool) c
            WHERE spools.id = c.spool;
        DELETE FROM changes;
        END""",
)

_VERSION_5 = (*_DELAYS, *_TALLIES)

MIGRATIONS = (_VERSION_1, _VERSION_2, _VERSION_3, _VERSION_4, _VERSION_5)
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
