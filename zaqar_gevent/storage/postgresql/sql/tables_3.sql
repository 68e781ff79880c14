-- Where reads begin, so that they do not walk over what has been deleted. Nothing is rewritten.

-- Below what place there is nothing any more. The last place counts; it is found first, however many
-- others have been deleted that a long transaction elsewhere keeps. `kind`:
-- p  position of a message of the `spool`
-- n  number of a delayed message of the `spool`
-- c  `xid` of a row of `changes` (spool 0)
-- u  `xid` of a row of `usage_changes` (spool 0)
-- e  `expires` of a message, receipt or subscription, in microseconds (spool 0)
-- d  `due` of a delayed message, or `expires` of a lease, in microseconds (spool 0)
CREATE TABLE {schema}.floors (
    kind "char" NOT NULL,
    spool bigint NOT NULL,
    place bigint NOT NULL,
    PRIMARY KEY (kind, spool, place)
) WITH (
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 2000,
    autovacuum_vacuum_cost_delay = 0
);

-- The transaction that made a change: those before it are over, unlike those of a lower `id`.
LOCK TABLE {schema}.changes, {schema}.tallies IN ACCESS EXCLUSIVE MODE;
WITH gone AS (DELETE FROM {schema}.changes RETURNING spool, total, held)
INSERT INTO {schema}.tallies AS t (spool, total, held)
    SELECT g.spool, sum(g.total), sum(g.held) FROM gone g GROUP BY g.spool
ON CONFLICT (spool) DO UPDATE SET total = t.total + excluded.total, held = t.held + excluded.held;
ALTER TABLE {schema}.changes ADD COLUMN xid xid8;
ALTER TABLE {schema}.changes ALTER COLUMN xid SET DEFAULT pg_current_xact_id();
ALTER TABLE {schema}.changes DROP CONSTRAINT changes_pkey;
CREATE INDEX changes_in_order ON {schema}.changes (xid);
DROP INDEX {schema}.changes_of_spool;
CREATE INDEX changes_of_spool ON {schema}.changes (spool, xid);

-- Groups of messages, and redrives. No table is rewritten; the indices are built of what `messages`
-- has of groups.

-- How claims take from the groups of a spool whose queue has `_ordered_groups` (mode & 1) or
-- `_fair_groups` (mode & 2). Without a spool it is of no use any more, and is removed a few rows at a
-- time. `reached`: the messages up to this position have been given to their groups; there, those
-- without a group have the group ''. `turn`: the last turn that a group was given. `began`: the
-- transaction that made it, and `created` the time.
CREATE TABLE {schema}.groupings (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    spool bigint UNIQUE,
    mode smallint NOT NULL,
    reached bigint NOT NULL DEFAULT 0,
    turn bigint NOT NULL DEFAULT 0,
    began xid8 NOT NULL,
    created double precision NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
CREATE INDEX groupings_left ON {schema}.groupings (id) WHERE spool IS NULL;

-- Groups that have a free message. `ready`: where claims look for them, by the position of the first or
-- by their turn; null while one of an ordered group is held or waits for its retry. The position may
-- be too small, where the first message is gone.
CREATE TABLE {schema}.message_groups (
    grouping bigint NOT NULL,
    name text COLLATE "C" NOT NULL,
    turn bigint NOT NULL,
    ready bigint,
    PRIMARY KEY (grouping, name)
) WITH (
    fillfactor = 80,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0
);
CREATE INDEX message_groups_ready ON {schema}.message_groups ((grouping + 0), ready)
    WHERE ready IS NOT NULL;

-- Groups that have to be looked at by the next claim: one of their messages is not held any more. So
-- whoever deletes or releases messages only adds a row.
CREATE TABLE {schema}.group_changes (
    spool bigint NOT NULL,
    name text COLLATE "C" NOT NULL
) WITH (
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 2000,
    autovacuum_vacuum_cost_delay = 0
);
CREATE INDEX group_changes_of_spool ON {schema}.group_changes (spool);

ALTER TABLE {schema}.spools ADD COLUMN grouping bigint;

CREATE INDEX messages_group_free
    ON {schema}.messages ((spool + 0), message_group COLLATE "C", position)
    WHERE message_group IS NOT NULL AND claim IS NULL;
-- `num_nulls`: so that no other index is taken for this one.
CREATE INDEX messages_group_held ON {schema}.messages ((spool + 0), message_group COLLATE "C")
    WHERE message_group IS NOT NULL AND num_nulls(claim) = 0;

CREATE FUNCTION {schema}.note_group() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO {schema}.group_changes (spool, name)
        SELECT OLD.spool, OLD.message_group
        WHERE EXISTS (SELECT 1 FROM {schema}.spools s WHERE s.id = OLD.spool AND s.grouping IS NOT NULL);
    RETURN NULL;
END $$;
CREATE TRIGGER message_released AFTER UPDATE OF claim ON {schema}.messages FOR EACH ROW
    WHEN (OLD.message_group IS NOT NULL AND OLD.claim IS NOT NULL AND NEW.claim IS NULL)
    EXECUTE FUNCTION {schema}.note_group();
CREATE TRIGGER held_message_deleted AFTER DELETE ON {schema}.messages FOR EACH ROW
    WHEN (OLD.message_group IS NOT NULL AND OLD.claim IS NOT NULL)
    EXECUTE FUNCTION {schema}.note_group();

-- Moves of dead letters to other queues. `spool`: that of the queue; null if it had no messages. `last`:
-- the messages up to this position are looked at; those up to `after` have been. `remaining`: how
-- many may still be moved. `passed_over`: messages that say no queue that they are from. `next_at`:
-- when the next step is due; null when it is over.
CREATE TABLE {schema}.redrives (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project text COLLATE "C" NOT NULL,
    queue text COLLATE "C" NOT NULL,
    spool bigint,
    target text COLLATE "C",
    after bigint NOT NULL DEFAULT 0,
    last bigint NOT NULL,
    remaining bigint,
    rate double precision,
    moved bigint NOT NULL DEFAULT 0,
    passed_over bigint NOT NULL DEFAULT 0,
    state text NOT NULL,
    reason text,
    created double precision NOT NULL,
    updated double precision NOT NULL,
    next_at double precision
);
CREATE INDEX redrives_of_queue ON {schema}.redrives (project, queue, id);
CREATE INDEX redrives_running ON {schema}.redrives (project) WHERE next_at IS NOT NULL;
CREATE INDEX redrives_due ON {schema}.redrives (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX redrives_over ON {schema}.redrives (updated) WHERE next_at IS NULL;

-- What projects have, for their quotas: the sum of `usage` and `usage_changes`. Triggers count, so
-- that nothing which writes has to know of it. Whoever writes only adds rows to `usage_changes`, which
-- are gathered from time to time. Bytes are those of the bodies and attributes of messages; they are
-- only counted while the triggers of their tables are enabled.
CREATE TABLE {schema}.usage (
    project text COLLATE "C" PRIMARY KEY,
    queues bigint NOT NULL DEFAULT 0,
    subscriptions bigint NOT NULL DEFAULT 0,
    bytes bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
CREATE TABLE {schema}.usage_changes (
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    project text COLLATE "C" NOT NULL,
    queues integer NOT NULL DEFAULT 0,
    subscriptions integer NOT NULL DEFAULT 0,
    bytes bigint NOT NULL DEFAULT 0
) WITH (
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_insert_scale_factor = 0,
    autovacuum_vacuum_insert_threshold = 100000,
    autovacuum_analyze_scale_factor = 1,
    autovacuum_vacuum_cost_delay = 0
);
CREATE INDEX usage_changes_in_order ON {schema}.usage_changes (xid);
CREATE INDEX usage_changes_of_project ON {schema}.usage_changes (project, xid);

INSERT INTO {schema}.usage (project, queues, subscriptions)
    SELECT f.project, sum(f.queues), sum(f.subscriptions) FROM (
        SELECT q.project, 1 AS queues, 0 AS subscriptions
        FROM {schema}.queues q WHERE q.kind = 'queue'
        UNION ALL
        SELECT s.project, 0, 1 FROM {schema}.subscriptions s) f
    GROUP BY f.project;

-- Whose the spools of deleted queues were, as long as something is left of them.
CREATE TABLE {schema}.past_spools (id bigint PRIMARY KEY, project text COLLATE "C" NOT NULL);

CREATE FUNCTION {schema}.remember_spool() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO {schema}.past_spools (id, project) VALUES (OLD.id, OLD.project);
    RETURN NULL;
END $$;
CREATE TRIGGER remember_spool AFTER DELETE ON {schema}.spools
    FOR EACH ROW EXECUTE FUNCTION {schema}.remember_spool();

CREATE FUNCTION {schema}.forget_spool() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM {schema}.past_spools p WHERE p.id = OLD.id;
    RETURN NULL;
END $$;
CREATE TRIGGER forget_spool AFTER DELETE ON {schema}.doomed_spools
    FOR EACH ROW EXECUTE FUNCTION {schema}.forget_spool();

CREATE FUNCTION {schema}.project_of(p_spool bigint) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT coalesce(
        (SELECT s.project FROM {schema}.spools s WHERE s.id = p_spool),
        (SELECT p.project FROM {schema}.past_spools p WHERE p.id = p_spool))
$$;

CREATE FUNCTION {schema}.count_queues() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO {schema}.usage_changes (project, queues)
        SELECT r.project, CASE TG_OP WHEN 'INSERT' THEN count(*) ELSE -count(*) END
        FROM changed r WHERE r.kind = 'queue' GROUP BY r.project;
    RETURN NULL;
END $$;
CREATE TRIGGER count_new AFTER INSERT ON {schema}.queues
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION {schema}.count_queues();
CREATE TRIGGER count_gone AFTER DELETE ON {schema}.queues
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION {schema}.count_queues();

CREATE FUNCTION {schema}.count_subscriptions() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO {schema}.usage_changes (project, subscriptions)
        SELECT r.project, CASE TG_OP WHEN 'INSERT' THEN count(*) ELSE -count(*) END
        FROM changed r GROUP BY r.project;
    RETURN NULL;
END $$;
CREATE TRIGGER count_new AFTER INSERT ON {schema}.subscriptions
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT
    EXECUTE FUNCTION {schema}.count_subscriptions();
CREATE TRIGGER count_gone AFTER DELETE ON {schema}.subscriptions
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT
    EXECUTE FUNCTION {schema}.count_subscriptions();

CREATE FUNCTION {schema}.count_bytes() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO {schema}.usage_changes (project, bytes)
        SELECT f.project, sum(CASE TG_OP WHEN 'INSERT' THEN f.bytes ELSE -f.bytes END) FROM (
            SELECT {schema}.project_of(r.spool) AS project,
                sum(octet_length(r.body) + coalesce(octet_length(r.attributes), 0)) AS bytes
            FROM changed r GROUP BY r.spool) f
        WHERE f.project IS NOT NULL GROUP BY f.project;
    RETURN NULL;
END $$;
CREATE TRIGGER count_new AFTER INSERT ON {schema}.messages
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION {schema}.count_bytes();
CREATE TRIGGER count_gone AFTER DELETE ON {schema}.messages
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION {schema}.count_bytes();
CREATE TRIGGER count_new AFTER INSERT ON {schema}.delayed
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION {schema}.count_bytes();
CREATE TRIGGER count_gone AFTER DELETE ON {schema}.delayed
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION {schema}.count_bytes();
-- Whether they are enabled, and when a server has last said that it needs that.
CREATE TABLE {schema}.counts_bytes (is_on boolean NOT NULL, used timestamptz NOT NULL);
INSERT INTO {schema}.counts_bytes (is_on, used) VALUES (false, now());
ALTER TABLE {schema}.messages DISABLE TRIGGER count_new, DISABLE TRIGGER count_gone;
ALTER TABLE {schema}.delayed DISABLE TRIGGER count_new, DISABLE TRIGGER count_gone;
