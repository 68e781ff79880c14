-- Some indices are on expressions such as `spool + 0`, so that only those statements use them that
-- say so. Otherwise the choice between two indices would be made while the tables are empty, and be
-- kept when it is wrong.

-- Names of queues and topics with their metadata, which is a JSON text.
CREATE TABLE {schema}.queues (
    project text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    metadata text NOT NULL,
    PRIMARY KEY (project, kind, name)
);

-- Where the messages of a queue are. Made by its first message, deleted with the queue, never
-- reused: what is left of a deleted queue belongs to a spool that nothing names any more.
CREATE TABLE {schema}.spools (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    UNIQUE (project, name)
);

-- Spools whose rows are still to be removed, a few at a time.
CREATE TABLE {schema}.doomed_spools (id bigint PRIMARY KEY);

-- Each batch of messages takes one number; a message's position is that number times 65536, plus
-- its place in the batch. No row is updated for it, so nothing is left behind that a long
-- transaction elsewhere would keep from being removed.
CREATE SEQUENCE {schema}.batches;

-- Positions from `first` on were given since a server was started, or the database has gone over
-- to another time line. They tell whether a marker can have been given by this history.
CREATE TABLE {schema}.epochs (
    first bigint PRIMARY KEY,
    name text NOT NULL,
    timeline text NOT NULL
);

-- Messages that are visible. `number` is the id of a message that was delayed; of any other it is
-- the position. A message is claimed while the claim of this token is there and has not expired.
-- `returned`: it has been claimed before, or was put back.
CREATE TABLE {schema}.messages (
    spool bigint NOT NULL,
    position bigint NOT NULL,
    number bigint,
    created double precision NOT NULL,
    expires double precision NOT NULL,
    claim uuid,
    client uuid,
    ttl integer NOT NULL,
    claim_count integer NOT NULL DEFAULT 0,
    encoding smallint NOT NULL,
    returned boolean NOT NULL DEFAULT false,
    checksum text,
    -- What upstream's messages do not have; objects are JSON texts.
    attributes text,
    message_group text,
    dead_letter text,
    body bytea NOT NULL,
    PRIMARY KEY (spool, position)
) WITH (
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 2000,
    autovacuum_vacuum_insert_scale_factor = 0.1,
    autovacuum_analyze_scale_factor = 0.05,
    autovacuum_vacuum_cost_delay = 0
);
-- Bodies are not compressed: it would cost more than the message itself.
ALTER TABLE {schema}.messages ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE INDEX messages_fresh ON {schema}.messages ((spool + 0), position)
    WHERE claim IS NULL AND NOT returned;
CREATE INDEX messages_returned ON {schema}.messages ((spool + 0), position)
    WHERE claim IS NULL AND returned;
CREATE INDEX messages_held ON {schema}.messages (claim, position) WHERE claim IS NOT NULL;
CREATE INDEX messages_delayed ON {schema}.messages (number) WHERE number IS NOT NULL;
CREATE INDEX messages_expiry ON {schema}.messages (expires);

-- Messages that nobody sees until they are due.
CREATE TABLE {schema}.delayed (
    number bigint PRIMARY KEY,
    spool bigint NOT NULL,
    due double precision NOT NULL,
    created double precision NOT NULL,
    expires double precision NOT NULL,
    client uuid,
    ttl integer NOT NULL,
    encoding smallint NOT NULL,
    checksum text,
    -- What upstream's messages do not have; objects are JSON texts.
    attributes text,
    message_group text,
    passed text,
    body bytea NOT NULL
) WITH (
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 2000,
    autovacuum_vacuum_cost_delay = 0
);
ALTER TABLE {schema}.delayed ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE INDEX delayed_of_spool ON {schema}.delayed ((spool + 0), (due + 0), number);
CREATE INDEX delayed_numbers ON {schema}.delayed (spool, (number + 0));
CREATE INDEX delayed_due ON {schema}.delayed (due);
CREATE INDEX delayed_expiry ON {schema}.delayed (expires);

-- Leases on messages.
CREATE TABLE {schema}.claims (
    token uuid PRIMARY KEY,
    spool bigint NOT NULL,
    expires double precision NOT NULL,
    ttl integer NOT NULL
) WITH (
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0
);
CREATE INDEX claims_of_spool ON {schema}.claims ((spool + 0), (expires + 0));
CREATE INDEX claims_expiry ON {schema}.claims (expires);

-- What posts with an id were answered: the position of the first message, until `expires`. `id` is
-- a digest of the client's.
CREATE TABLE {schema}.receipts (
    spool bigint NOT NULL,
    id uuid NOT NULL,
    first bigint NOT NULL,
    expires double precision NOT NULL,
    PRIMARY KEY (spool, id)
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX receipts_expiry ON {schema}.receipts (expires);

-- How many messages a spool has, expired ones included, and how many of them claims hold: the sum
-- of `tallies` and `changes`. Whoever posts, claims or deletes only adds a row to `changes`.
CREATE TABLE {schema}.tallies (
    spool bigint PRIMARY KEY,
    total bigint NOT NULL,
    held bigint NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
CREATE TABLE {schema}.changes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    spool bigint NOT NULL,
    total integer NOT NULL,
    held integer NOT NULL
) WITH (
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_insert_scale_factor = 0,
    autovacuum_vacuum_insert_threshold = 100000,
    autovacuum_analyze_scale_factor = 1,
    autovacuum_vacuum_cost_delay = 0
);
CREATE INDEX changes_of_spool ON {schema}.changes (spool);

CREATE TABLE {schema}.subscriptions (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project text COLLATE "C" NOT NULL,
    source text COLLATE "C" NOT NULL,
    subscriber text NOT NULL,
    ttl integer NOT NULL,
    created double precision NOT NULL,
    expires double precision NOT NULL,
    confirmed boolean NOT NULL DEFAULT false,
    options text NOT NULL
);
CREATE UNIQUE INDEX subscriptions_unique
    ON {schema}.subscriptions (project, source, md5(subscriber));
CREATE INDEX subscriptions_of_source ON {schema}.subscriptions (project, source, id);
CREATE INDEX subscriptions_expiry ON {schema}.subscriptions (expires);

CREATE TABLE {schema}.pools (
    name text COLLATE "C" PRIMARY KEY,
    uri text NOT NULL,
    weight bigint NOT NULL,
    flavor text,
    options text NOT NULL
);
CREATE TABLE {schema}.flavors (
    project text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    capabilities text NOT NULL,
    PRIMARY KEY (project, name)
);
CREATE TABLE {schema}.catalogue (
    project text COLLATE "C" NOT NULL,
    queue text COLLATE "C" NOT NULL,
    pool text NOT NULL,
    PRIMARY KEY (project, queue)
);
