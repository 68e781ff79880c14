-- Retries that wait, and single messages of claims. Nothing is rewritten: the new columns have no
-- values at first.

-- A lease of some messages of a claim that were extended by themselves has the claim as `parent`.
-- `retry`: the first delay before a retry, by how much each further one is longer, and the longest.
-- `waits`: nobody holds the messages; they wait for their retry until this `expires`.
ALTER TABLE {schema}.claims
    ADD COLUMN parent uuid,
    ADD COLUMN retry double precision[],
    ADD COLUMN waits boolean;
CREATE INDEX claims_parts ON {schema}.claims (parent) WHERE parent IS NOT NULL;
DROP INDEX {schema}.claims_expiry;
CREATE INDEX claims_leases ON {schema}.claims (expires) WHERE waits IS NULL;
CREATE INDEX claims_waits ON {schema}.claims (expires) WHERE waits IS NOT NULL;

-- When the retry of a message that waits is due; null for any other. Its `claim` has `waits`.
ALTER TABLE {schema}.messages ADD COLUMN retry_at double precision;

-- When a server has last said that it uses these functions.
ALTER TABLE {schema}.functions ADD COLUMN used timestamptz;

-- What says that a queue is not used from this database, and which ids came with it from another
-- pool: JSON texts, see `storage.moves`.
ALTER TABLE {schema}.spools ADD COLUMN mark text, ADD COLUMN arrival text;
