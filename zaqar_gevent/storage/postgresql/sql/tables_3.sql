-- Where reads begin, so that they do not walk over what has been deleted. Nothing is rewritten.

-- Below what place there is nothing any more. The last place counts; it is found first, however many
-- others have been deleted that a long transaction elsewhere keeps. `kind`:
-- p  position of a message of the `spool`
-- n  number of a delayed message of the `spool`
-- c  `xid` of a row of `changes` (spool 0)
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
