"""The tables, and how files of older versions become files of this one.

queues          names of queues and topics with their metadata (management)
spools          where the messages of a named queue lie; made by its first message, unmapped
                when the queue is deleted, never reused. `mark` says that the queue is not used
                from this file, and `arrival` which ids came with it from another pool: JSON
                objects, see `storage.moves`
doomed_spools   unmapped spools whose rows are still to be removed, a few at a time
messages        `id` grows in the order of commits over all processes and is never reused;
                `position` is the message's place in its queue: the id, or `placed` for a message
                that was delayed, which is the next number of the same sequence when it becomes
                visible for the first time. A message that waits for its retry is hidden again;
                it keeps its position, since its `placed` is not null;
                `delayed_until` is 0 unless the message is hidden until then;
                `claim` is the claim that holds the message, whether it has expired or not;
                `body` is encoded as the number in `encrypted` says: 0 JSON, 2 MsgPack; with 1
                it is a JSON text with what the server made of the body to encrypt it. It is
                text in rows of older versions, and a BLOB in all others. A long one is elsewhere
                and goes with its message: by the number in `long_body` in `long_bodies`, or, if
                that is negative, by the number without its sign in `bodies_in_pieces`;
                `passed` names the queues that a delayed message came through by webhooks;
                `attributes` is a JSON object of strings, `message_group` the name of its group
                (or '' without one, in older rows);
                `member` is the id of the group in `message_groups` where it is registered there,
                or was in a grouping that is gone;
                `dead_letter` is a JSON object that says where a dead letter is from: `queue`,
                `message_id`, `claim_count`, `at`, `reason` and the `ttl` that it had
bodies_in_pieces  bodies that are written and removed by several transactions. `keep_until` is
                null once a message has the body. Before, the body is being written, and may be
                removed from that time on; 0 if no message is to have it, or has it any more
body_pieces     these pieces: those of a body are numbered in order from `FIRST_PIECE` on
delays          the spools with delayed messages; at `due` or later the next one is due
receipts        what posts with an id of the client's were answered, `first` to `last`
epochs          the ids from `first` on were given since the file was opened once more; see `epochs`
claims          leases; a message is claimed while its claim's `expires` lies ahead. A claim is
                deleted before its messages are freed. The messages of one `token` may have
                several rows, with leases that end at different times; `retry` is a JSON object
                with `initial`, `factor` and `max`, the delay before its messages are claimed
                again, in seconds; null for none
endings         of each spool and second, how many messages expire then and how many are held by
                claims that expire then; see `tallies`
tallied         the one row has the id up to which messages are counted in `spools` and `endings`
changes         what has to be added to these counts since; for deleted messages, by `deleting`
usage           what each project has: queues, subscriptions, and bytes of messages as far as
                they are counted in `spools`; see `usage`. No row for a project that has nothing
groupings       of the spools whose queues have ordered or fair groups (`mode`: 1 ordered, 2 fair, 3
                both); `spools.grouping` is its id, or 0. `turn` is the last one that was given. One
                without a spool is of no use any more. See `groups`
message_groups  the groups of a grouping that have registered messages, which claims have come by:
                up to `grouped_to` of the spool, a position. Messages without a group have the group
                ''. `ready` sorts the groups that have a message to claim: by the position of the
                first one, or by `turn` in fair queues; null for the others. Where groups are fair
                and ordered, it may be set while a message of the group is held
redrives        moves of dead letters out of a queue: of the messages of `spool` from the position
                `after` on up to the id `last`, to `target` or to where each is from. `rate` is in
                messages a second, `remaining` the number still to be moved at most; null for no
                limit. `next_at` is when the next step is due; null once it is over. `passed_over`
                counts messages that stay, since they do not say where they are from

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

_MESSAGE_DELETED = f"""CREATE TRIGGER message_deleted AFTER DELETE ON messages
    WHEN OLD.claim IS NOT NULL OR OLD.id <= (SELECT last FROM tallied) BEGIN
    {_CHANGE}
    VALUES (
        OLD.spool,
        -(OLD.id <= (SELECT last FROM tallied)),
        {SECOND.format(time='OLD.expires')},
        -(OLD.claim IS NOT NULL),
        (SELECT {SECOND.format(time='expires')} FROM claims WHERE id = OLD.claim));
    END"""

_CLAIM_TRIGGERS = (
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
)

# New messages are not counted by a trigger, which each post would have to pay for: see `tallies`.
# Deletions are noted in `changes`: to change the counts themselves would cost more pages.
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
    _MESSAGE_DELETED,
    f"""CREATE TRIGGER message_prolonged AFTER UPDATE OF expires ON messages
        WHEN OLD.expires != NEW.expires AND OLD.id <= (SELECT last FROM tallied) BEGIN
        {_CHANGE} VALUES
            (OLD.spool, -1, {SECOND.format(time='OLD.expires')}, 0, NULL),
            (NEW.spool, 1, {SECOND.format(time='NEW.expires')}, 0, NULL);
        END""",
    *_CLAIM_TRIGGERS,
    """CREATE TRIGGER changes_gathered AFTER INSERT ON changes WHEN NEW.id % 128 = 0 BEGIN
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

# Nothing was ever in `message_groups` before the version 9, which has others.
_LOOKED_AT_GROUP = """
    UPDATE message_groups SET ready = CASE
        WHEN mode & 1 AND name != '' AND EXISTS (
            SELECT 1 FROM messages INDEXED BY messages_group_held
            WHERE spool = OLD.spool AND message_group = OLD.message_group
            AND message_group IS NOT NULL
            AND (claim IS NOT NULL OR delayed_until > 0 AND placed IS NOT NULL))
        THEN NULL
        ELSE (SELECT CASE WHEN mode & 2 THEN turn ELSE position END
            FROM messages INDEXED BY messages_group_free
            WHERE spool = OLD.spool AND message_group = OLD.message_group
            AND message_group IS NOT NULL AND claim IS NULL AND delayed_until = 0
            ORDER BY position LIMIT 1)
        END
        WHERE spool = OLD.spool AND name = OLD.message_group;"""

_ATTRIBUTES_AND_GROUPS = (
    'ALTER TABLE messages ADD COLUMN attributes TEXT',
    'ALTER TABLE messages ADD COLUMN message_group TEXT',
    'ALTER TABLE messages ADD COLUMN dead_letter TEXT',
    """CREATE INDEX messages_group_free ON messages (spool, message_group, position)
        WHERE message_group IS NOT NULL AND claim IS NULL AND delayed_until = 0""",
    """CREATE INDEX messages_group_held ON messages (spool, message_group)
        WHERE message_group IS NOT NULL
        AND (claim IS NOT NULL OR delayed_until > 0 AND placed IS NOT NULL)""",
    'ALTER TABLE spools ADD COLUMN grouping INTEGER NOT NULL DEFAULT 0',
    'ALTER TABLE spools ADD COLUMN grouped_to INTEGER NOT NULL DEFAULT 0',
    """CREATE TABLE message_groups (
        spool INTEGER NOT NULL,
        name TEXT NOT NULL,
        mode INTEGER NOT NULL,
        turn INTEGER NOT NULL,
        ready INTEGER,
        PRIMARY KEY (spool, name)
    ) WITHOUT ROWID""",
    """CREATE INDEX message_groups_ready ON message_groups (spool, ready)
        WHERE ready IS NOT NULL""",
    'CREATE INDEX message_groups_turn ON message_groups (spool, turn)',
    f"""CREATE TRIGGER grouped_message_changed AFTER UPDATE OF claim, delayed_until ON messages
        WHEN OLD.message_group IS NOT NULL BEGIN {_LOOKED_AT_GROUP}
        END""",
    f"""CREATE TRIGGER grouped_message_deleted AFTER DELETE ON messages
        WHEN OLD.message_group IS NOT NULL BEGIN {_LOOKED_AT_GROUP}
        DELETE FROM message_groups
            WHERE spool = OLD.spool AND name = OLD.message_group AND ready IS NULL
            AND NOT EXISTS (SELECT 1 FROM messages INDEXED BY messages_group_held
                WHERE spool = OLD.spool AND message_group = OLD.message_group
                AND message_group IS NOT NULL
                AND (claim IS NOT NULL OR delayed_until > 0 AND placed IS NOT NULL));
        END""",
)

# The column `token` is not unique any more, which only a new table can say.
_LEASES = (
    'DROP TRIGGER message_deleted',
    """CREATE TABLE new_claims (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        spool INTEGER NOT NULL,
        token TEXT NOT NULL,
        ttl INTEGER NOT NULL,
        expires REAL NOT NULL,
        retry TEXT
    )""",
    'INSERT INTO new_claims SELECT id, spool, token, ttl, expires, NULL FROM claims',
    'DROP TABLE claims',
    'ALTER TABLE new_claims RENAME TO claims',
    'CREATE INDEX claims_expiry ON claims (expires)',
    'CREATE INDEX claims_of_spool ON claims (spool, expires)',
    'CREATE INDEX claims_of_token ON claims (token)',
    _MESSAGE_DELETED,
    *_CLAIM_TRIGGERS,
)

_REDRIVES = (
    """CREATE TABLE redrives (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        project TEXT NOT NULL,
        queue TEXT NOT NULL,
        spool INTEGER,
        target TEXT,
        after INTEGER NOT NULL DEFAULT 0,
        last INTEGER NOT NULL,
        remaining INTEGER,
        rate REAL,
        moved INTEGER NOT NULL DEFAULT 0,
        passed_over INTEGER NOT NULL DEFAULT 0,
        state TEXT NOT NULL,
        reason TEXT,
        created REAL NOT NULL,
        updated REAL NOT NULL,
        next_at REAL
    )""",
    'CREATE INDEX redrives_of_queue ON redrives (project, queue)',
    'CREATE INDEX redrives_due ON redrives (next_at) WHERE next_at IS NOT NULL',
)

_VERSION_6 = (*_ATTRIBUTES_AND_GROUPS, *_LEASES, *_REDRIVES)

# With the time of expiry in it, a list passes over what has expired without reading the rows.
_VERSION_7 = (
    'DROP INDEX messages_free',
    """CREATE INDEX messages_free ON messages (spool, position, expires)
        WHERE claim IS NULL AND delayed_until = 0""",
)

# Bodies that are in the rows of their messages stay there. What was in `changes` is gathered by the
# next transaction: a trigger would have to look at each change.
_VERSION_8 = (
    'CREATE TABLE long_bodies (id INTEGER PRIMARY KEY, body BLOB NOT NULL)',
    'ALTER TABLE messages ADD COLUMN long_body INTEGER',
    """CREATE TRIGGER long_body_deleted AFTER DELETE ON messages
        WHEN OLD.long_body IS NOT NULL BEGIN
        DELETE FROM long_bodies WHERE id = OLD.long_body;
        END""",
    'DROP TRIGGER changes_gathered',
)

_HELD_IN_GROUP = """EXISTS (SELECT 1 FROM messages INDEXED BY messages_group_held
    WHERE spool = {spool} AND message_group = {name} AND message_group IS NOT NULL
    AND (claim IS NOT NULL OR delayed_until > 0 AND placed IS NOT NULL))"""

_FREE_IN_GROUP = """(SELECT CASE WHEN mode & 2 THEN turn ELSE position END
    FROM messages INDEXED BY messages_group_free
    WHERE spool = {spool} AND message_group = {name} AND message_group IS NOT NULL
    AND claim IS NULL AND delayed_until = 0 ORDER BY position LIMIT 1)"""

_GROUP_READY = f"""CASE WHEN mode & 1 AND name != '' AND {_HELD_IN_GROUP} THEN NULL
    ELSE {_FREE_IN_GROUP} END"""

_OF_GROUP = """WHERE grouping = (SELECT grouping FROM spools WHERE id = OLD.spool)
    AND name = OLD.message_group"""
_OLD = {'spool': 'OLD.spool', 'name': 'OLD.message_group'}

# A group is looked at anew whenever one of its messages is taken, comes back or goes. PERF: that it
# is held is clear from what was taken.
_GROUPINGS = (
    'DROP TRIGGER grouped_message_changed',
    'DROP TRIGGER grouped_message_deleted',
    'DROP TABLE message_groups',
    'DROP INDEX messages_group_free',
    """CREATE INDEX messages_group_free ON messages (spool, message_group, position, expires)
        WHERE message_group IS NOT NULL AND claim IS NULL AND delayed_until = 0""",
    """CREATE INDEX messages_waiting ON messages (spool, position)
        WHERE delayed_until > 0 AND placed IS NOT NULL""",
    """CREATE TABLE groupings (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        spool INTEGER UNIQUE,
        mode INTEGER NOT NULL,
        turn INTEGER NOT NULL DEFAULT 0
    )""",
    """CREATE TABLE message_groups (
        grouping INTEGER NOT NULL,
        name TEXT NOT NULL,
        mode INTEGER NOT NULL,
        turn INTEGER NOT NULL,
        ready INTEGER,
        PRIMARY KEY (grouping, name)
    ) WITHOUT ROWID""",
    """CREATE INDEX message_groups_ready ON message_groups (grouping, ready)
        WHERE ready IS NOT NULL""",
    f"""CREATE TRIGGER grouped_message_changed AFTER UPDATE OF claim, delayed_until ON messages
        WHEN OLD.message_group IS NOT NULL BEGIN
        UPDATE message_groups SET ready = CASE
            WHEN mode & 1 AND name != '' AND NEW.claim IS NOT NULL THEN NULL
            ELSE {_GROUP_READY.format(**_OLD)} END {_OF_GROUP};
        END""",
    f"""CREATE TRIGGER grouped_message_deleted AFTER DELETE ON messages
        WHEN OLD.message_group IS NOT NULL BEGIN
        UPDATE message_groups SET ready = {_GROUP_READY.format(**_OLD)} {_OF_GROUP};
        DELETE FROM message_groups {_OF_GROUP} AND ready IS NULL
            AND NOT {_HELD_IN_GROUP.format(**_OLD)};
        END""",
)

_MOVES = (
    'ALTER TABLE spools ADD COLUMN mark TEXT',
    'ALTER TABLE spools ADD COLUMN arrival TEXT',
    'CREATE INDEX spools_marked ON spools (project, name) WHERE mark IS NOT NULL',
)

_VERSION_9 = (*_GROUPINGS, *_MOVES)

# What a message has, in bytes. Nothing changes it: the columns are written with the row.
_BYTES = 'length({row}body) + ifnull(length({row}attributes), 0)'
_LONG_BYTES = '(SELECT ifnull(length(body), 0) FROM long_bodies WHERE id = OLD.long_body)'

_MESSAGE_BYTES = f"""{_BYTES.format(row='m.')} + CASE WHEN m.long_body IS NULL THEN 0
    ELSE (SELECT ifnull(length(b.body), 0) FROM long_bodies b WHERE b.id = m.long_body) END"""

_IS_COUNTED = 'OLD.id <= (SELECT last FROM tallied)'
_COUNT_LONG = f"""INSERT INTO changes (spool, expiring, freed, bytes)
    SELECT OLD.spool, 0, 0, -{_LONG_BYTES} WHERE {_IS_COUNTED};"""


def _count_rows(table: str, column: str, condition: str = 'true') -> tuple[str, str]:
    """Triggers that count the rows of a table for their projects.

    Not `INSERT OR IGNORE`: the statement that fires a trigger would change what that does.
    """
    add = f"""INSERT INTO usage (project, {column}) VALUES ({{row}}.project, {{number}})
        ON CONFLICT (project) DO UPDATE SET {column} = {column} + excluded.{column};"""
    return (
        f"""CREATE TRIGGER {column}_added AFTER INSERT ON {table}
        WHEN {condition.format(row='NEW')} BEGIN {add.format(row='NEW', number=1)} END""",
        f"""CREATE TRIGGER {column}_removed AFTER DELETE ON {table}
        WHEN {condition.format(row='OLD')} BEGIN {add.format(row='OLD', number=-1)} END""",
    )


_USAGE = (
    'ALTER TABLE spools ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0',
    'ALTER TABLE changes ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0',
    """CREATE TABLE usage (
        project TEXT PRIMARY KEY,
        queues INTEGER NOT NULL DEFAULT 0,
        subscriptions INTEGER NOT NULL DEFAULT 0,
        bytes INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID""",
    f"""UPDATE spools SET bytes = counted.bytes FROM (
        SELECT m.spool, sum({_MESSAGE_BYTES}) AS bytes FROM messages m
        WHERE m.id <= (SELECT last FROM tallied) GROUP BY m.spool) counted
        WHERE spools.id = counted.spool""",
    """INSERT INTO usage (project, queues, subscriptions, bytes)
        SELECT project, sum(queues), sum(subscriptions), sum(bytes) FROM (
            SELECT project, count(*) AS queues, 0 AS subscriptions, 0 AS bytes
            FROM queues WHERE kind = 'queue' GROUP BY project
            UNION ALL SELECT project, 0, count(*), 0 FROM subscriptions GROUP BY project
            UNION ALL SELECT project, 0, 0, sum(bytes) FROM spools GROUP BY project)
        GROUP BY project""",
    *_count_rows('queues', 'queues', "{row}.kind = 'queue'"),
    *_count_rows('subscriptions', 'subscriptions'),
    """CREATE TRIGGER spool_bytes_changed AFTER UPDATE OF bytes ON spools
        WHEN OLD.bytes != NEW.bytes BEGIN
        INSERT INTO usage (project, bytes) VALUES (NEW.project, NEW.bytes - OLD.bytes)
        ON CONFLICT (project) DO UPDATE SET bytes = bytes + excluded.bytes;
        END""",
    """CREATE TRIGGER spool_bytes_removed AFTER DELETE ON spools WHEN OLD.bytes != 0 BEGIN
        UPDATE usage SET bytes = bytes - OLD.bytes WHERE project = OLD.project;
        END""",
    """CREATE TRIGGER usage_ended AFTER UPDATE ON usage
        WHEN NEW.queues = 0 AND NEW.subscriptions = 0 AND NEW.bytes = 0 BEGIN
        DELETE FROM usage WHERE project = NEW.project;
        END""",
    'DROP TRIGGER message_deleted',
    f"""CREATE TRIGGER message_deleted AFTER DELETE ON messages
        WHEN OLD.claim IS NOT NULL OR {_IS_COUNTED} BEGIN
        INSERT INTO changes (spool, expiring, expires_at, freed, frees_at, bytes)
        VALUES (
            OLD.spool,
            -({_IS_COUNTED}),
            {SECOND.format(time='OLD.expires')},
            -(OLD.claim IS NOT NULL),
            (SELECT {SECOND.format(time='expires')} FROM claims WHERE id = OLD.claim),
            -({_BYTES.format(row='OLD.')}) * ({_IS_COUNTED}));
        END""",
    'DROP TRIGGER long_body_deleted',
    f"""CREATE TRIGGER long_body_deleted AFTER DELETE ON messages
        WHEN OLD.long_body IS NOT NULL BEGIN
        {_COUNT_LONG}
        DELETE FROM long_bodies WHERE id = OLD.long_body;
        END""",
    f"""CREATE TRIGGER long_body_left AFTER UPDATE OF long_body ON messages
        WHEN OLD.long_body IS NOT NULL AND NEW.long_body IS NULL BEGIN
        {_COUNT_LONG}
        END""",
)

HELD_IN_GROUP = _HELD_IN_GROUP
"""SQL for whether a message of a group is held; to be formatted with the spool and the name."""

IN_GROUP = """FROM messages INDEXED BY messages_member
    WHERE member = {member} AND claim IS NULL AND delayed_until = 0"""
"""SQL for the free registered messages of a group; to be formatted with its number."""

GROUP_READY = f"""CASE WHEN mode & 1 AND name != '' AND {HELD_IN_GROUP} THEN NULL ELSE (
        SELECT CASE WHEN mode & 2 THEN turn ELSE position END
        {IN_GROUP.format(member='message_groups.id')} ORDER BY position LIMIT 1) END"""
"""SQL for `ready` of a row of `message_groups`; to be formatted with the spool."""

# The group of a message that is deleted, if it has a row that this may change.
_GROUPING_OF_OLD = '(SELECT grouping FROM spools WHERE id = OLD.spool)'
_GROUP_OF_OLD = f"""ifnull((
        SELECT id FROM message_groups WHERE id = OLD.member AND grouping = {_GROUPING_OF_OLD}), (
        SELECT id FROM message_groups
        WHERE grouping = {_GROUPING_OF_OLD} AND name = ifnull(OLD.message_group, '')))"""

# PERF: a group has a row of its own, and a message an entry in an index by groups, only while they
# need one; and groups that are used together are together, rather than where their names lead.
_MEMBERS = (
    'DROP TRIGGER grouped_message_changed',
    'DROP TRIGGER grouped_message_deleted',
    'DROP INDEX messages_group_free',
    'DROP INDEX messages_waiting',
    'DROP TABLE message_groups',
    'DELETE FROM groupings',
    'UPDATE spools SET grouping = 0, grouped_to = 0 WHERE grouping != 0',
    """CREATE TABLE message_groups (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        grouping INTEGER NOT NULL,
        name TEXT NOT NULL,
        mode INTEGER NOT NULL,
        turn INTEGER NOT NULL,
        ready INTEGER
    )""",
    'CREATE UNIQUE INDEX message_groups_name ON message_groups (grouping, name)',
    """CREATE INDEX message_groups_ready ON message_groups (grouping, ready)
        WHERE ready IS NOT NULL""",
    'ALTER TABLE messages ADD COLUMN member INTEGER',
    """CREATE INDEX messages_member ON messages (member, position, expires)
        WHERE member IS NOT NULL AND claim IS NULL AND delayed_until = 0""",
    f"""CREATE TRIGGER grouped_message_deleted AFTER DELETE ON messages
        WHEN (OLD.member IS NOT NULL OR OLD.message_group IS NOT NULL)
        AND (SELECT ready IS NULL OR OLD.claim IS NULL FROM message_groups
            WHERE id = {_GROUP_OF_OLD}) BEGIN
        DELETE FROM message_groups WHERE id = {_GROUP_OF_OLD}
            AND NOT EXISTS (SELECT 1 {IN_GROUP.format(member='message_groups.id')});
        UPDATE message_groups SET ready = {GROUP_READY.format(spool='OLD.spool', name='name')}
            WHERE id = {_GROUP_OF_OLD};
        END""",
)

_VERSION_10 = (*_USAGE, *_MEMBERS)

MAX_PIECES = 1 << 16
"""Numbers of pieces that a body in pieces has for itself."""

FIRST_PIECE = f'{{body}} * {MAX_PIECES}'
"""SQL for the number of the first piece of a body; to be formatted with the number of the body."""

PIECE_NUMBERS = f'BETWEEN {FIRST_PIECE} AND {FIRST_PIECE} + {MAX_PIECES - 1}'
"""SQL for the numbers of all the pieces of a body, formatted in the same way."""

PIECES = f'FROM body_pieces WHERE id {PIECE_NUMBERS}'
"""SQL for the pieces of a body, formatted in the same way."""

LONG_BYTES = """CASE WHEN {row}long_body IS NULL THEN 0
    WHEN {row}long_body > 0
    THEN (SELECT ifnull(length(b.body), 0) FROM long_bodies b WHERE b.id = {row}long_body)
    ELSE (SELECT ifnull(sum(bytes), 0) FROM bodies_in_pieces WHERE id = -{row}long_body) END"""
"""SQL for the bytes of the body of a message that is not in its row."""

MESSAGE_BYTES = f"""{_BYTES.format(row='m.')} + {LONG_BYTES.format(row='m.')}"""
"""SQL for the bytes of the message `m`: of its body and its attributes, as they are stored."""

_COUNT_ANY_LONG = f"""INSERT INTO changes (spool, expiring, freed, bytes)
    SELECT OLD.spool, 0, 0, -({LONG_BYTES.format(row='OLD.')}) WHERE {_IS_COUNTED};"""

# The pieces of a body whose message is deleted are removed later, some at a time.
_VERSION_11 = (
    """CREATE TABLE bodies_in_pieces (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        pieces INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        keep_until REAL
    )""",
    """CREATE INDEX bodies_without_message ON bodies_in_pieces (keep_until)
        WHERE keep_until IS NOT NULL""",
    'CREATE TABLE body_pieces (id INTEGER PRIMARY KEY, body BLOB NOT NULL)',
    'DROP TRIGGER long_body_deleted',
    f"""CREATE TRIGGER long_body_deleted AFTER DELETE ON messages
        WHEN OLD.long_body IS NOT NULL BEGIN
        {_COUNT_ANY_LONG}
        DELETE FROM long_bodies WHERE id = OLD.long_body;
        UPDATE bodies_in_pieces SET keep_until = 0 WHERE id = -OLD.long_body;
        END""",
    'DROP TRIGGER long_body_left',
    f"""CREATE TRIGGER long_body_left AFTER UPDATE OF long_body ON messages
        WHEN OLD.long_body IS NOT NULL AND NEW.long_body IS NULL BEGIN
        {_COUNT_ANY_LONG}
        END""",
)

# PERF: each took longer than to delete the message; see `deleting`.
_VERSION_12 = (
    'DROP TRIGGER message_deleted',
    'DROP TRIGGER long_body_deleted',
    'DROP TRIGGER grouped_message_deleted',
)

MIGRATIONS = (
    *(_VERSION_1, _VERSION_2, _VERSION_3, _VERSION_4),
    *(_VERSION_5, _VERSION_6, _VERSION_7, _VERSION_8),
    *(_VERSION_9, _VERSION_10, _VERSION_11, _VERSION_12),
)
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
