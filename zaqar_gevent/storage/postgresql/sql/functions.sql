-- What servers call. Each function does one kind of work, in one round trip, and returns rows of
-- `facts`, a JSON value, and a `document`: a page of messages, see `documents.py`.
--
-- Times come from the server that calls, in seconds since the epoch. Every statement here must have
-- the same plan however large the tables are, and is planned only once: the settings ask for that
-- and forbid sequential scans, there are no joins but by subqueries, and no condition but the wanted
-- ones matches an index. So `expires - p_now > 0` stands where messages are found by their position,
-- and `spool + 0` where the index has this expression. PERF: `head` and `page` are part of the statement
-- they are in, as long as none of their arguments is a subquery. Settings
-- cost time at each call: functions that others call have those of their callers.
-- A condition with a subquery is a statement of its own, which is started even if what stands before
-- its AND is false: so there are nested IFs.
--
-- Whoever gives positions in a queue holds the lock of its name until the commit. So they become
-- visible in their order. Locks of several queues are taken in the order of their keys, and nothing
-- waits for rows while it holds them.

-- What a page says of a message: see `_Head` in the documents of the embedded store.
CREATE FUNCTION {schema}.head_{v}(
    number bigint, place bigint, now float8, created float8, ttl int, claim_count int, claim uuid,
    checksum text, encoding smallint, size int, attributes text, message_group text,
    dead_letter text) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT concat(
        '["', lpad(to_hex(coalesce(number, place)), 16, '0'),
        '",', greatest(0, floor(now - created)::bigint), ',', ttl, ',', claim_count,
        CASE WHEN claim IS NULL THEN ',null,'
            ELSE concat(',"', replace(claim::text, '-', ''), '",') END,
        CASE WHEN checksum IS NULL THEN 'null,' ELSE concat('"', checksum, '",') END,
        CASE WHEN number IS NULL OR place IS NULL THEN 'null,' ELSE concat(place, ',') END,
        encoding, ',', size,
        CASE WHEN attributes IS NULL AND dead_letter IS NULL
                AND (message_group IS NULL OR message_group = '') THEN ']'
            ELSE concat(
                ',', coalesce(to_json(attributes), 'null'),
                ',', coalesce(to_json(nullif(message_group, '')), 'null'),
                ',', coalesce(to_json(dead_letter), 'null'), ']') END)
$$;

CREATE FUNCTION {schema}.page_{v}(heads text, bodies bytea) RETURNS bytea
LANGUAGE sql STABLE AS $$
    SELECT convert_to('[' || coalesce(heads, '') || E']\n', 'UTF8') || coalesce(bodies, '')
$$;

CREATE FUNCTION {schema}.lock_{v}(p_project text, p_queue text) RETURNS void
LANGUAGE sql VOLATILE AS $$
    SELECT pg_advisory_xact_lock({lock}, hashtext(p_project || '/' || p_queue))
$$;

-- A spool with a mark: it, if the mark is of no effect any more; otherwise an error that tells the
-- mark.
CREATE FUNCTION {schema}.marked_{v}(p_id bigint, p_mark text, p_project text, p_queue text)
RETURNS bigint
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF p_mark::json ->> 'state' = 'closing'
            AND (p_mark::json ->> 'until')::float8 <= extract(epoch FROM clock_timestamp()) THEN
        RETURN p_id;
    END IF;
    RAISE EXCEPTION USING ERRCODE = 'ZQ001',
        MESSAGE = json_build_array(p_project, p_queue, p_mark::json)::text;
END $$;

-- The spool of a queue that is used from this database.
CREATE FUNCTION {schema}.spool_{v}(p_project text, p_queue text) RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN s.mark IS NULL THEN s.id
        ELSE {schema}.marked_{v}(s.id, s.mark, p_project, p_queue) END
    FROM {schema}.spools s WHERE s.project = p_project AND s.name = p_queue
$$;

-- Fails if the queue is not used from this database.
CREATE FUNCTION {schema}.check_here_{v}(p_project text, p_queue text)
RETURNS TABLE (facts json, document bytea)
LANGUAGE plpgsql STABLE AS $$
BEGIN
    PERFORM {schema}.spool_{v}(p_project, p_queue);
END $$;

-- facts: how what came with a queue from another pool is known here; null for nothing.
CREATE FUNCTION {schema}.arrival_{v}(p_project text, p_queue text)
RETURNS TABLE (facts json, document bytea)
LANGUAGE sql STABLE AS $$
    SELECT s.arrival::json, NULL::bytea FROM {schema}.spools s
        WHERE s.project = p_project AND s.name = p_queue
$$;

-- Lets a queue be used here that has come by a move, or that left by one and was made anew.
CREATE FUNCTION {schema}.unmark_{v}(p_project text, p_queue text, p_state text, p_move text)
RETURNS TABLE (facts json, document bytea)
LANGUAGE sql VOLATILE AS $$
    UPDATE {schema}.spools s SET mark = NULL
        WHERE s.project = p_project AND s.name = p_queue AND s.mark::json ->> 'state' = p_state
            AND s.mark::json ->> 'move' = coalesce(p_move, s.mark::json ->> 'move')
        RETURNING NULL::json, NULL::bytea
$$;

-- The place below which there is nothing any more; see `floors`.
CREATE FUNCTION {schema}.floor_{v}(p_kind "char", p_spool bigint) RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT coalesce((SELECT f.place FROM {schema}.floors f
        WHERE f.kind = p_kind AND f.spool = p_spool ORDER BY f.place DESC LIMIT 1), 0)
$$;

-- The same where it is a time, in seconds since the epoch.
CREATE FUNCTION {schema}.time_floor_{v}(p_kind "char") RETURNS float8
LANGUAGE sql STABLE AS $$
    SELECT coalesce((SELECT f.place FROM {schema}.floors f
        WHERE f.kind = p_kind AND f.spool = 0 ORDER BY f.place DESC LIMIT 1), 0) / 1e6::float8
$$;

-- Raises a floor from one place to another. With `p_again` the place has been found from the start
-- on, and may be lower.
CREATE FUNCTION {schema}.raise_floor_{v}(
    p_kind "char", p_spool bigint, p_old bigint, p_new bigint, p_again bool) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF p_again THEN
        DELETE FROM {schema}.floors f
            WHERE f.kind = p_kind AND f.spool = p_spool AND f.place <> p_new;
    ELSIF p_new <= p_old THEN
        RETURN;
    ELSE
        DELETE FROM {schema}.floors f
            WHERE f.kind = p_kind AND f.spool = p_spool AND f.place = p_old;
    END IF;
    INSERT INTO {schema}.floors (kind, spool, place) VALUES (p_kind, p_spool, p_new)
        ON CONFLICT DO NOTHING;
END $$;

-- Has it looked for anew when leases and delays have ended, and what has expired, since some have been
-- added that were over already.
CREATE FUNCTION {schema}.reset_floors_{v}() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    -- Whoever is raising them has not seen these.
    PERFORM pg_advisory_xact_lock({lock}, 0);
    DELETE FROM {schema}.floors f WHERE f.kind IN ('d', 'e');
END $$;

-- Finds the first position that a queue still has, and the first number of a delayed message.
-- While the lock of its name is held, nothing is on the way to it, and all positions to come are
-- higher than those that have been given.
CREATE FUNCTION {schema}.sweep_{v}(p_project text, p_queue text)
RETURNS TABLE (facts json, document bytea)
LANGUAGE plpgsql {settings} AS $$
DECLARE
    v_spool bigint;
    v_old bigint;
    v_last bigint;
BEGIN
    -- A floor that is lost in a crash is only a lower one.
    PERFORM set_config('synchronous_commit', 'off', true);
    PERFORM {schema}.lock_{v}(p_project, p_queue);
    SELECT s.id INTO v_spool FROM {schema}.spools s
        WHERE s.project = p_project AND s.name = p_queue AND s.mark IS NULL;
    IF FOUND THEN
        SELECT last_value * 65536 + 65535 INTO v_last FROM {schema}.batches;
        v_old := {schema}.floor_{v}('p', v_spool);
        PERFORM {schema}.raise_floor_{v}('p', v_spool, v_old, coalesce(
            (SELECT m.position - 1 FROM {schema}.messages m
            WHERE m.spool = v_spool AND m.position > v_old ORDER BY m.position LIMIT 1), v_last),
            false);
        v_old := {schema}.floor_{v}('n', v_spool);
        PERFORM {schema}.raise_floor_{v}('n', v_spool, v_old, coalesce(
            (SELECT d.number - 1 FROM {schema}.delayed d
            WHERE d.spool = v_spool AND d.number + 0 > v_old ORDER BY d.number + 0 LIMIT 1), v_last),
            false);
    END IF;
    RETURN QUERY SELECT NULL::json, NULL::bytea;
END $$;

-- Makes the spool of a queue that has none.
CREATE FUNCTION {schema}.make_spool_{v}(p_project text, p_queue text) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    v_id bigint;
BEGIN
    INSERT INTO {schema}.spools (project, name) VALUES (p_project, p_queue)
        ON CONFLICT DO NOTHING RETURNING id INTO v_id;
    IF v_id IS NULL THEN
        v_id := {schema}.spool_{v}(p_project, p_queue);
    END IF;
    RETURN v_id;
END $$;

-- Seconds before a message can be claimed again that has been claimed so many times.
CREATE FUNCTION {schema}.delay_{v}(p_retry float8[], p_claims int) RETURNS float8
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN p_retry IS NULL THEN 0
        -- The power would be too large for its type.
        WHEN ln(p_retry[2]) * (p_claims - 1) > 600 THEN p_retry[3]
        ELSE least(p_retry[1] * power(p_retry[2], greatest(0, p_claims - 1)), p_retry[3]) END
$$;

-- The leases of a claim that have not expired: its own, and those of single messages.
CREATE FUNCTION {schema}.leases_{v}(p_spool bigint, p_now float8, p_claim uuid) RETURNS uuid[]
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN ARRAY(
        SELECT c.token FROM {schema}.claims c WHERE c.token = p_claim AND c.parent IS NULL
            AND c.waits IS NOT TRUE AND c.spool = p_spool AND c.expires - p_now > 0
        UNION ALL
        SELECT c.token FROM {schema}.claims c
            WHERE c.parent = p_claim AND c.spool = p_spool AND c.expires - p_now > 0);
END $$;

-- The claim that holds a message, whose lease is given; null for none.
CREATE FUNCTION {schema}.holder_{v}(p_lease uuid, p_now float8) RETURNS uuid
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF p_lease IS NULL THEN
        RETURN NULL;
    END IF;
    RETURN (SELECT coalesce(c.parent, c.token) FROM {schema}.claims c
        WHERE c.token = p_lease AND c.waits IS NOT TRUE AND c.expires - p_now > 0);
END $$;

-- Tells one history of the database from another: it changes with the time line of the WAL, with each
-- start of PostgreSQL, and where the database or its tables have been made anew, as by a restore.
-- PERF: VOLATILE, so that it is planned as part of the statement that calls it.
CREATE FUNCTION {schema}.timeline_{v}() RETURNS text
LANGUAGE sql VOLATILE AS $$
    SELECT left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)
        || ' ' || date_part('epoch', pg_postmaster_start_time())
        || ' ' || {batches}::regclass::oid
        || ' ' || pg_relation_filepath({messages}::regclass)
$$;

CREATE FUNCTION {schema}.begin_epoch_{v}() RETURNS TABLE (facts json, document bytea)
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO {schema}.epochs (first, name, timeline) VALUES (
        nextval({batches}) * 65536,
        left(gen_random_uuid()::text, 8),
        {schema}.timeline_{v}());
    RETURN QUERY SELECT NULL::json, NULL::bytea;
END $$;

-- The position before those that the caller may give. Whatever gives positions has them from here:
-- where the database is not what it was when the last were given, an epoch begins before these.
CREATE FUNCTION {schema}.next_base_{v}() RETURNS bigint
LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT e.timeline FROM {schema}.epochs e ORDER BY e.first DESC LIMIT 1)
            IS DISTINCT FROM {schema}.timeline_{v}() THEN
        PERFORM {schema}.begin_epoch_{v}();
    END IF;
    RETURN nextval({batches}) * 65536 - 1;
END $$;

-- Posts `p_posts`, each {p: project, q: queue, c: whether the queue must exist, i: its id or null,
-- f: until when that is remembered, w: what its messages have passed}. `p_messages`, with their
-- `p_bodies`: {o: number of the post, t: ttl, d: delay, l: whether it counts as posted after the delay,
-- u: client, s: checksum, e: encoding, a: attributes, g: group}.
--
-- facts: the position before that of the first message, and of each post null if its queue does not
-- exist, 0, or the position of its first message if it has been made before.
CREATE FUNCTION {schema}.post_{v}(
    p_now float8, p_posts json, p_messages json, p_bodies bytea[], p_has_ids bool, p_has_delays bool)
RETURNS TABLE (facts json, document bytea)
LANGUAGE plpgsql {settings} AS $$
DECLARE
    v_spools bigint[];
    v_made bigint[];
    v_base bigint;
BEGIN
    PERFORM pg_advisory_xact_lock({lock}, name.key) FROM (
        SELECT DISTINCT hashtext(p.p || '/' || p.q) AS key
        FROM json_to_recordset(p_posts) AS p(p text, q text) ORDER BY 1) name;
    v_spools := ARRAY(
        SELECT CASE WHEN p.c AND NOT EXISTS (
                SELECT 1 FROM {schema}.queues q
                WHERE q.project = p.p AND q.kind IN ('queue', 'topic') AND q.name = p.q)
            THEN NULL
            ELSE coalesce((SELECT CASE WHEN s.mark IS NULL THEN s.id
                    ELSE {schema}.marked_{v}(s.id, s.mark, p.p, p.q) END
                FROM {schema}.spools s WHERE s.project = p.p AND s.name = p.q), 0) END
        FROM ROWS FROM (json_to_recordset(p_posts) AS (p text, q text, c bool))
            WITH ORDINALITY AS p(p, q, c, n)
        ORDER BY p.n);
    IF 0 = ANY (v_spools) THEN
        v_spools := ARRAY(
            SELECT CASE WHEN v_spools[p.n] = 0 THEN {schema}.make_spool_{v}(p.p, p.q)
                ELSE v_spools[p.n] END
            FROM ROWS FROM (json_to_recordset(p_posts) AS (p text, q text))
                WITH ORDINALITY AS p(p, q, n)
            ORDER BY p.n);
    END IF;
    v_made := ARRAY(SELECT CASE WHEN s.spool IS NULL THEN NULL ELSE 0 END
        FROM unnest(v_spools) WITH ORDINALITY AS s(spool, n) ORDER BY s.n);
    IF p_has_ids THEN
        v_made := ARRAY(
            SELECT CASE WHEN v_made[p.n] IS NULL OR p.i IS NULL THEN v_made[p.n]
                ELSE coalesce((SELECT r.first FROM {schema}.receipts r
                    WHERE r.spool = v_spools[p.n] AND r.id = p.i AND r.expires - p_now > 0), 0) END
            FROM ROWS FROM (json_to_recordset(p_posts) AS (i uuid)) WITH ORDINALITY AS p(i, n)
            ORDER BY p.n);
    END IF;
    v_base := {schema}.next_base_{v}();
    INSERT INTO {schema}.messages
        (spool, position, created, expires, client, ttl, encoding, checksum, attributes,
        message_group, body)
    SELECT v_spools[m.o], v_base + m.n, p_now, p_now + m.t, m.u, m.t, coalesce(m.e, 0::smallint),
        m.s, m.a, m.g, m.body
    FROM ROWS FROM (
        json_to_recordset(p_messages) AS (
            o int, t int, d float8, u uuid, s text, e smallint, a text, g text),
        unnest(p_bodies)) WITH ORDINALITY AS m(o, t, d, u, s, e, a, g, body, n)
    WHERE v_made[m.o] = 0 AND m.d IS NULL;
    IF p_has_delays THEN
        INSERT INTO {schema}.delayed
            (number, spool, due, created, expires, client, ttl, encoding, checksum, passed,
            attributes, message_group, body)
        SELECT v_base + m.n, v_spools[m.o], p_now + m.d, p_now + coalesce(m.l, 0) * m.d,
            p_now + coalesce(m.l, 0) * m.d + m.t, m.u, m.t,
            coalesce(m.e, 0::smallint), m.s, (p_posts -> (m.o - 1) ->> 'w'), m.a, m.g, m.body
        FROM ROWS FROM (
            json_to_recordset(p_messages) AS (
                o int, t int, d float8, l int, u uuid, s text, e smallint, a text, g text),
            unnest(p_bodies)) WITH ORDINALITY AS m(o, t, d, l, u, s, e, a, g, body, n)
        WHERE v_made[m.o] = 0 AND m.d IS NOT NULL;
    END IF;
    INSERT INTO {schema}.changes (spool, total, held)
        SELECT v_spools[m.o], count(*), 0 FROM json_to_recordset(p_messages) AS m(o int)
        WHERE v_made[m.o] = 0 GROUP BY v_spools[m.o];
    IF p_has_ids THEN
        INSERT INTO {schema}.receipts (spool, id, first, expires)
        SELECT v_spools[p.n], p.i, v_base + (
                SELECT min(m.n) FROM ROWS FROM (json_to_recordset(p_messages) AS (o int))
                    WITH ORDINALITY AS m(o, n) WHERE m.o = p.n), p.f
        FROM ROWS FROM (json_to_recordset(p_posts) AS (i uuid, f float8))
            WITH ORDINALITY AS p(i, f, n)
        WHERE p.i IS NOT NULL AND v_made[p.n] = 0
        ON CONFLICT (spool, id) DO UPDATE SET first = excluded.first, expires = excluded.expires;
    END IF;
    RETURN QUERY SELECT json_build_array(v_base, to_json(v_made)), NULL::bytea;
END $$;

-- facts: the position of the first message of a post that was made with this id; null for none.
CREATE FUNCTION {schema}.find_post_{v}(p_project text, p_queue text, p_now float8, p_id uuid)
RETURNS TABLE (facts json, document bytea)
LANGUAGE plpgsql STABLE {settings} AS $$
BEGIN
    RETURN QUERY SELECT to_json((SELECT r.first FROM {schema}.receipts r
        WHERE r.spool = (SELECT s.id FROM {schema}.spools s
                WHERE s.project = p_project AND s.name = p_queue)
            AND r.id = p_id AND r.expires - p_now > 0)), NULL::bytea;
END $$;

-- facts: the last position of the page (or the marker), the name of its epoch, whether the marker
-- can have been given, whether delayed messages are due.
CREATE FUNCTION {schema}.list_{v}(
    p_project text, p_queue text, p_now float8, p_marker bigint, p_epoch text, p_limit int,
    p_client uuid, p_claimed bool, p_delayed bool)
RETURNS TABLE (facts json, document bytea)
LANGUAGE plpgsql STABLE {settings} AS $$
DECLARE
    v_spool bigint := {schema}.spool_{v}(p_project, p_queue);
    v_after bigint := p_marker;
    v_begin bigint;
    v_begin_delayed bigint;
    v_ended float8;
    v_is_given bool := true;
    v_is_due bool;
    v_last bigint;
    v_page bytea;
BEGIN
    IF p_marker > 0 THEN
        v_is_given := p_marker <= (SELECT last_value FROM {schema}.batches) * 65536 + 65535;
        IF p_epoch IS NULL THEN
            v_after := coalesce((SELECT m.position FROM {schema}.messages m
                WHERE m.number = p_marker), p_marker);
        ELSIF v_is_given THEN
            v_is_given := EXISTS (SELECT 1 FROM {schema}.epochs e
                WHERE e.name = p_epoch AND NOT EXISTS (SELECT 1 FROM {schema}.epochs later
                    WHERE later.first > e.first AND later.first <= p_marker));
        END IF;
    END IF;
    SELECT greatest(v_after, {schema}.floor_{v}('p', v_spool)), {schema}.time_floor_{v}('d')
        INTO v_begin, v_ended;
    IF p_delayed THEN
        v_begin_delayed := greatest(v_after, {schema}.floor_{v}('n', v_spool));
    END IF;
    v_is_due := EXISTS (SELECT 1 FROM {schema}.delayed d
        WHERE d.spool + 0 = v_spool AND d.due + 0 <= p_now AND d.due + 0 > v_ended);
    IF v_spool IS NULL THEN
        v_page := E'[]\n';
    ELSIF p_claimed AND NOT p_delayed THEN
        SELECT {schema}.page_{v}(string_agg(f.head, ','), string_agg(f.body, '')), max(f.position)
            INTO v_page, v_last FROM (
            SELECT h.position, h.body, {schema}.head_{v}(
                h.number, h.position, p_now, h.created, h.ttl, h.claim_count, h.holder,
                h.checksum, h.encoding, octet_length(h.body),
                h.attributes, h.message_group, h.dead_letter) AS head
            FROM (
                SELECT m.*, {schema}.holder_{v}(m.claim, p_now) AS holder
                FROM {schema}.messages m
                WHERE m.spool = v_spool AND m.position > v_begin AND m.expires - p_now > 0
                    AND (m.retry_at IS NULL OR m.retry_at <= p_now)
                    AND (m.claim IS NULL OR NOT EXISTS (SELECT 1 FROM {schema}.claims c
                        WHERE c.token = m.claim AND c.retry IS NOT NULL AND c.expires - p_now <= 0
                            AND c.expires + {schema}.delay_{v}(c.retry, m.claim_count) > p_now))
                    AND (p_client IS NULL OR m.client IS DISTINCT FROM p_client)
                ORDER BY m.position LIMIT p_limit) h) f;
    ELSE
        SELECT {schema}.page_{v}(string_agg(f.head, ','), string_agg(f.body, '')), max(f.position)
            INTO v_page, v_last FROM (
            SELECT u.position, u.body, {schema}.head_{v}(
                u.number, u.place, p_now, u.created, u.ttl, u.claim_count, u.claim,
                u.checksum, u.encoding, octet_length(u.body),
                u.attributes, u.message_group, u.dead_letter) AS head
            FROM (
                (SELECT m.position, m.position AS place, m.number, m.created, m.ttl, m.claim_count,
                    NULL::uuid AS claim, m.checksum, m.encoding, m.body, m.attributes, m.message_group,
                    m.dead_letter
                FROM {schema}.messages m
                WHERE m.spool + 0 = v_spool AND m.position > v_begin AND m.claim IS NULL
                    AND NOT m.returned AND m.expires - p_now > 0
                    AND (p_client IS NULL OR m.client IS DISTINCT FROM p_client)
                ORDER BY m.position LIMIT p_limit)
                UNION ALL
                (SELECT m.position, m.position, m.number, m.created, m.ttl, m.claim_count,
                    NULL, m.checksum, m.encoding, m.body, m.attributes, m.message_group, m.dead_letter
                FROM {schema}.messages m
                WHERE m.spool + 0 = v_spool AND m.position > v_begin AND m.claim IS NULL
                    AND m.returned AND m.expires - p_now > 0
                    AND (p_client IS NULL OR m.client IS DISTINCT FROM p_client)
                ORDER BY m.position LIMIT p_limit)
                UNION ALL
                -- Of leases that have expired, or with `p_claimed` of all; and what waits for a retry.
                (SELECT m.position, m.position, m.number, m.created, m.ttl, m.claim_count,
                    CASE WHEN c.expires - p_now > 0 AND c.waits IS NULL
                        THEN coalesce(c.parent, c.token) END, m.checksum, m.encoding, m.body,
                    m.attributes, m.message_group, m.dead_letter
                FROM {schema}.claims c CROSS JOIN LATERAL (
                    SELECT * FROM {schema}.messages h
                    WHERE h.claim = c.token AND h.position > v_begin OFFSET 0) m
                WHERE c.spool + 0 = v_spool
                    AND c.expires + 0 > v_ended
                    AND c.expires + 0 <= CASE WHEN p_claimed OR p_delayed THEN 'Infinity'::float8
                        ELSE p_now END
                    AND (p_claimed OR c.waits OR c.expires - p_now <= 0)
                    AND (p_delayed OR c.retry IS NULL
                        OR c.expires + {schema}.delay_{v}(c.retry, m.claim_count) <= p_now)
                    AND m.expires - p_now > 0
                    AND (p_client IS NULL OR m.client IS DISTINCT FROM p_client)
                ORDER BY m.position LIMIT p_limit)
                UNION ALL
                (SELECT d.number, NULL, d.number, d.created, d.ttl, 0,
                    NULL, d.checksum, d.encoding, d.body, d.attributes, d.message_group, NULL
                FROM {schema}.delayed d
                WHERE p_delayed AND d.spool = v_spool AND d.number + 0 > v_begin_delayed
                    AND d.expires - p_now > 0
                    AND (p_client IS NULL OR d.client IS DISTINCT FROM p_client)
                ORDER BY d.number + 0 LIMIT p_limit)
                ORDER BY 1 LIMIT p_limit) u) f;
    END IF;
    v_last := coalesce(v_last, v_after);
    RETURN QUERY SELECT json_build_array(
        v_last,
        (SELECT e.name FROM {schema}.epochs e WHERE e.first <= v_last ORDER BY e.first DESC LIMIT 1),
        v_is_given, v_is_due), v_page;
END $$;

CREATE FUNCTION {schema}.get_{v}(p_project text, p_queue text, p_now float8, p_numbers bigint[])
RETURNS TABLE (facts json, document bytea)
LANGUAGE plpgsql STABLE {settings} AS $$
DECLARE
    v_spool bigint := {schema}.spool_{v}(p_project, p_queue);
BEGIN
    RETURN QUERY
    SELECT NULL::json, {schema}.page_{v}(string_agg(f.head, ','), string_agg(f.body, '')) FROM (
        SELECT h.body, {schema}.head_{v}(
            h.number, h.place, p_now, h.created, h.ttl, h.claim_count, h.holder, h.checksum,
            h.encoding, octet_length(h.body),
                h.attributes, h.message_group, h.dead_letter) AS head
        FROM (SELECT u.*, {schema}.holder_{v}(u.claim, p_now) AS holder
        FROM (
            SELECT m.position, m.position AS place, m.number, m.created, m.ttl, m.claim_count,
                m.claim, m.checksum, m.encoding, m.body, m.attributes, m.message_group,
                m.dead_letter
            FROM {schema}.messages m
            WHERE m.spool = v_spool AND m.position = ANY (p_numbers) AND m.number IS NULL
                AND m.expires - p_now > 0
            UNION ALL
            SELECT m.position, m.position, m.number, m.created, m.ttl, m.claim_count,
                m.claim, m.checksum, m.encoding, m.body, m.attributes, m.message_group,
                m.dead_letter
            FROM {schema}.messages m
            WHERE m.number = ANY (p_numbers) AND m.spool = v_spool AND m.expires - p_now > 0
            UNION ALL
            SELECT d.number, NULL, d.number, d.created, d.ttl, 0,
                NULL, d.checksum, d.encoding, d.body, d.attributes, d.message_group, NULL
            FROM {schema}.delayed d
            WHERE d.number = ANY (p_numbers) AND d.spool = v_spool AND d.expires - p_now > 0
            ORDER BY 1) u OFFSET 0) h) f;
END $$;

-- Lets messages of leases wait for their retry; when the first of them is due, or null. Those that
-- are due already stay as they are.
--
-- p_positions: only these; null for all. p_end: when the leases have ended; null for each at its own
-- time. p_delay: how long they wait from now on; null for what the lease says.
CREATE FUNCTION {schema}.defer_{v}(
    p_now float8, p_leases uuid[], p_positions bigint[], p_end float8, p_delay float8) RETURNS float8
LANGUAGE plpgsql AS $$
DECLARE
    v_token uuid;
    v_count int;
    v_first float8;
    r record;
BEGIN
    FOR r IN
        -- One that expires before holds up its group until then, and no longer.
        SELECT f.spool, f.lease, least(f.due, f.expires) AS due, array_agg(f.position) AS positions
        FROM (
            SELECT m.spool, m.position, c.token AS lease, CASE WHEN p_delay IS NULL
                THEN coalesce(p_end, c.expires) + {schema}.delay_{v}(c.retry, m.claim_count)
                ELSE p_now + p_delay END AS due, m.expires
            FROM {schema}.claims c CROSS JOIN LATERAL (
                SELECT h.spool, h.position, h.claim_count, h.expires FROM {schema}.messages h
                WHERE h.claim = c.token OFFSET 0) m
            WHERE c.token = ANY (p_leases) AND (p_delay IS NOT NULL OR c.retry IS NOT NULL)
                AND (p_positions IS NULL OR m.position = ANY (p_positions))) f
        WHERE f.due > p_now GROUP BY f.spool, f.lease, least(f.due, f.expires)
    LOOP
        v_token := gen_random_uuid();
        UPDATE {schema}.messages m SET claim = v_token, retry_at = r.due, returned = true
            WHERE m.spool = r.spool AND m.position = ANY (r.positions) AND m.claim = r.lease;
        GET DIAGNOSTICS v_count = ROW_COUNT;
        IF v_count > 0 THEN
            INSERT INTO {schema}.claims (token, spool, expires, ttl, waits)
                VALUES (v_token, r.spool, r.due, 0, true);
            INSERT INTO {schema}.changes (spool, total, held) VALUES (r.spool, 0, -v_count);
            v_first := least(v_first, r.due);
        END IF;
    END LOOP;
    RETURN v_first;
END $$;

-- Ends leases: their messages are free, or wait for their retry; when the first is due, or null.
CREATE FUNCTION {schema}.end_leases_{v}(
    p_now float8, p_leases uuid[], p_end float8, p_delay float8) RETURNS float8
LANGUAGE plpgsql AS $$
DECLARE
    v_due float8;
BEGIN
    -- PERF: most leases know no delay.
    IF p_delay > 0 OR (p_delay IS NULL AND EXISTS (SELECT 1 FROM {schema}.claims c
            WHERE c.token = ANY (p_leases) AND c.retry IS NOT NULL)) THEN
        v_due := {schema}.defer_{v}(p_now, p_leases, NULL, p_end, p_delay);
    END IF;
    DELETE FROM {schema}.claims c WHERE c.token = ANY (p_leases);
    WITH freed AS (
        UPDATE {schema}.messages m SET claim = NULL, returned = true WHERE m.claim = ANY (p_leases)
        RETURNING m.spool)
    INSERT INTO {schema}.changes (spool, total, held)
        SELECT f.spool, 0, -count(*) FROM freed f GROUP BY f.spool;
    RETURN v_due;
END $$;

-- Ends leases that have expired, after `p_ended`, of one spool or of all; whether there may be more.
CREATE FUNCTION {schema}.end_claims_{v}(
    p_now float8, p_ended float8, p_spool bigint, p_most int) RETURNS bool
LANGUAGE plpgsql {settings} AS $$
DECLARE
    v_leases uuid[];
BEGIN
    IF p_spool IS NULL THEN
        v_leases := ARRAY(SELECT c.token FROM {schema}.claims c
            WHERE c.expires <= p_now AND c.expires > p_ended AND c.waits IS NULL
            ORDER BY c.expires LIMIT p_most FOR UPDATE SKIP LOCKED);
    ELSE
        v_leases := ARRAY(SELECT c.token FROM {schema}.claims c
            WHERE c.spool + 0 = p_spool AND c.expires + 0 <= p_now AND c.expires + 0 > p_ended
                AND c.waits IS NOT TRUE
            ORDER BY c.expires + 0 LIMIT p_most FOR UPDATE SKIP LOCKED);
    END IF;
    IF cardinality(v_leases) = 0 THEN
        RETURN false;
    END IF;
    PERFORM {schema}.end_leases_{v}(p_now, v_leases, NULL, NULL);
    RETURN cardinality(v_leases) = p_most;
END $$;

-- How claims take from the groups of a queue with these metadata: 1 in order, 2 in turn, 3 both, 0 as if
-- there were none.
CREATE FUNCTION {schema}.mode_{v}(p_metadata text) RETURNS int
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN CASE WHEN (p_metadata::json -> '_ordered_groups')::text = 'true' THEN 1 ELSE 0 END
        + CASE WHEN (p_metadata::json -> '_fair_groups')::text = 'true' THEN 2 ELSE 0 END;
END $$;

-- Gives messages that are locked to claims, or away without any: the page of each claim, in their order.
--
-- p_positions: without claims and with one, in any order. p_firsts: for each claim that is given messages,
-- the position of the first of them or one before it, ascending. p_places: not null where the messages
-- of claims are not behind each other; then `p_firsts` are all positions, ascending, these are the
-- claims that they are given to, from 1 on, and each of the claims is given some.
CREATE FUNCTION {schema}.give_{v}(
    p_spool bigint, p_now float8, p_positions bigint[], p_firsts bigint[], p_places int[],
    p_claims uuid[], p_ttl int, p_grace int, p_retry float8[]) RETURNS SETOF bytea
LANGUAGE plpgsql AS $$
DECLARE
    v_end float8 := p_now + p_ttl;
BEGIN
    IF p_claims IS NULL THEN
        RETURN QUERY WITH taken AS (
            DELETE FROM {schema}.messages m
            WHERE m.spool = p_spool AND m.position = ANY (p_positions) RETURNING m.*),
        counted AS (
            INSERT INTO {schema}.changes (spool, total, held)
                VALUES (p_spool, -cardinality(p_positions), 0))
        SELECT {schema}.page_{v}(string_agg(f.head, ','), string_agg(f.body, '')) FROM (
            SELECT t.body, {schema}.head_{v}(
                t.number, t.position, p_now, t.created, t.ttl, t.claim_count, NULL, t.checksum,
                t.encoding, octet_length(t.body),
                t.attributes, t.message_group, t.dead_letter) AS head
            FROM taken t ORDER BY t.position) f;
    ELSE
        RETURN QUERY WITH taken AS (
            UPDATE {schema}.messages m SET
                claim = p_claims[CASE
                    WHEN p_places IS NULL THEN width_bucket(m.position, p_firsts)
                    ELSE p_places[width_bucket(m.position, p_firsts)] END],
                claim_count = m.claim_count + 1, returned = true,
                ttl = CASE WHEN m.expires < v_end + p_grace THEN p_ttl + p_grace ELSE m.ttl END,
                expires = greatest(m.expires, v_end + p_grace)
            WHERE m.spool = p_spool AND m.position = ANY (p_positions) RETURNING m.*),
        leased AS (
            INSERT INTO {schema}.claims (token, spool, expires, ttl, retry)
                SELECT c.token, p_spool, v_end, p_ttl, p_retry
                FROM unnest(CASE WHEN p_places IS NULL THEN p_claims[:cardinality(p_firsts)]
                    ELSE p_claims END) AS c(token)),
        counted AS (
            INSERT INTO {schema}.changes (spool, total, held)
                VALUES (p_spool, 0, cardinality(p_positions)))
        SELECT {schema}.page_{v}(string_agg(f.head, ','), string_agg(f.body, '')) FROM (
            SELECT t.body, CASE
                WHEN p_places IS NULL THEN width_bucket(t.position, p_firsts)
                ELSE p_places[width_bucket(t.position, p_firsts)] END AS place, {schema}.head_{v}(
                t.number, t.position, p_now, t.created, t.ttl, t.claim_count, t.claim, t.checksum,
                t.encoding, octet_length(t.body),
                t.attributes, t.message_group, t.dead_letter) AS head
            FROM taken t ORDER BY 2, t.position) f
        GROUP BY f.place ORDER BY f.place;
    END IF;
END $$;

-- Takes the first free messages, `p_limit` for each of the claims `p_claims`, or away without any. A row
-- for each claim, in their order; the last is that of all further ones as well.
--
-- p_after: what has never been claimed is looked for behind this position. p_most: of dead letters,
-- the number of claims; 0 without any, -1 if that is not known. p_again: the only claim may have been made
-- already. p_mode: 0 without groups, -1 if that is not known. facts: what it comes to, and the last
-- position taken of what had never been claimed. One of
--   done
--   due      delayed messages, or what waited for a retry, have to be made visible first
--   groups   the queue has, or had, groups: `take_groups` has to be called
--   ask      the queue may have dead letters
--   worn     there are dead letters, to be moved first
--   more     more claims have expired than were ended; try again
CREATE FUNCTION {schema}.take_{v}(
    p_project text, p_queue text, p_now float8, p_limit int, p_after bigint, p_most int,
    p_claims uuid[], p_ttl int, p_grace int, p_again bool, p_retry float8[], p_mode int)
RETURNS TABLE (facts json, document bytea)
LANGUAGE plpgsql {settings} AS $$
DECLARE
    v_limit int := p_limit * coalesce(cardinality(p_claims), 1);
    v_spool bigint;
    v_mark text;
    v_begin bigint;
    v_ended float8;
    v_metadata text;
    v_old bigint[] := '{}';
    v_new bigint[];
    v_firsts bigint[] := '{}';
    v_is_due bool;
    v_has_ended bool;
    v_has_returned bool;
    v_has_more bool := false;
    v_is_mixed bool := false;
    v_queue text;
    v_head text;
    v_after bigint;
    v_last bigint;
BEGIN
    -- PERF: most of what a statement costs is to start it, so that these are one.
    SELECT f.id, f.mark, f.first, f.ended,
            EXISTS (SELECT 1 FROM {schema}.claims c
                WHERE c.spool + 0 = f.id AND c.expires + 0 <= p_now AND c.expires + 0 > f.ended),
            EXISTS (SELECT 1 FROM {schema}.delayed d
                WHERE d.spool + 0 = f.id AND d.due + 0 <= p_now AND d.due + 0 > f.ended),
            EXISTS (SELECT 1 FROM {schema}.messages m
                WHERE m.spool + 0 = f.id AND m.claim IS NULL AND m.returned
                    AND m.expires - p_now > 0 AND m.position > f.first),
            CASE WHEN p_mode < 0 THEN (SELECT q.metadata FROM {schema}.queues q
                WHERE q.project = p_project AND q.kind = 'queue' AND q.name = p_queue) END
        INTO v_spool, v_mark, v_begin, v_ended, v_has_ended, v_is_due, v_has_returned, v_metadata
        FROM (
            SELECT s.id, s.mark,
                coalesce((SELECT p.place FROM {schema}.floors p
                    WHERE p.kind = 'p' AND p.spool = s.id ORDER BY p.place DESC LIMIT 1), 0) AS first,
                coalesce((SELECT p.place FROM {schema}.floors p
                    WHERE p.kind = 'd' AND p.spool = 0 ORDER BY p.place DESC LIMIT 1), 0)
                    / 1e6::float8 AS ended
            FROM {schema}.spools s WHERE s.project = p_project AND s.name = p_queue OFFSET 0) f;
    IF v_mark IS NOT NULL THEN
        PERFORM {schema}.marked_{v}(v_spool, v_mark, p_project, p_queue);
    END IF;
    facts := json_build_array('done', 0);
    document := E'[]\n';
    IF v_spool IS NULL THEN
        RETURN NEXT;
        RETURN;
    END IF;
    IF p_again THEN
        IF EXISTS (SELECT 1 FROM {schema}.claims c WHERE c.token = p_claims[1]) THEN
            -- The answer was lost.
            document := {schema}.held_{v}(v_spool, p_now, p_claims[1]);
            RETURN NEXT;
            RETURN;
        END IF;
    END IF;
    IF v_has_ended AND NOT v_is_due THEN
        v_is_due := EXISTS (SELECT 1 FROM {schema}.claims c
            WHERE c.spool + 0 = v_spool AND c.expires + 0 <= p_now AND c.expires + 0 > v_ended
                AND coalesce(c.waits, false));
    END IF;
    IF v_is_due THEN
        RETURN QUERY SELECT json_build_array('due', 0), NULL::bytea;
        RETURN;
    END IF;
    IF p_mode < 0 THEN
        IF strpos(v_metadata, '_groups"') > 0 AND {schema}.mode_{v}(v_metadata) > 0 THEN
            RETURN QUERY SELECT json_build_array('groups', 0), NULL::bytea;
            RETURN;
        ELSIF p_most < 0 AND strpos(v_metadata, '"_max_claim_count"') > 0 THEN
            RETURN QUERY SELECT json_build_array('ask', 0), NULL::bytea;
            RETURN;
        END IF;
    END IF;
    IF v_has_ended THEN
        v_has_more := {schema}.end_claims_{v}(p_now, v_ended, v_spool, 50);
    END IF;
    IF v_has_returned OR v_has_ended THEN
        IF p_most > 0 AND EXISTS (SELECT 1 FROM {schema}.messages m
                WHERE m.spool + 0 = v_spool AND m.claim IS NULL AND m.returned
                    AND m.position > v_begin AND m.claim_count >= p_most
                    AND m.expires - p_now > 0) THEN
            RETURN QUERY SELECT json_build_array('worn', 0), NULL::bytea;
            RETURN;
        END IF;
        v_old := ARRAY(SELECT m.position FROM {schema}.messages m
            WHERE m.spool + 0 = v_spool AND m.claim IS NULL AND m.returned AND m.expires - p_now > 0
                AND m.position > v_begin
            ORDER BY m.position LIMIT v_limit FOR UPDATE SKIP LOCKED);
    END IF;
    -- PERF: the caller does not know yet what calls of the same transaction have taken, which would all
    -- be walked over. So the session remembers the last that was taken of the queue that was taken from last.
    v_after := greatest(p_after, v_begin);
    IF p_after > 0 THEN
        v_queue := '{lock} ' || v_spool || ' ';
        v_head := current_setting('zaqar_gevent.head', true);
        IF starts_with(v_head, v_queue) THEN
            v_after := greatest(v_after, substr(v_head, length(v_queue) + 1)::bigint);
        END IF;
    END IF;
    IF cardinality(v_old) > 0 THEN
        -- Where the queue had groups, they may come later.
        v_is_mixed := EXISTS (SELECT 1 FROM {schema}.messages m
            WHERE m.spool + 0 = v_spool AND m.claim IS NULL AND NOT m.returned
                AND m.expires - p_now > 0 AND m.position > v_after
                AND m.position < v_old[cardinality(v_old)]);
    END IF;
    IF v_is_mixed OR (cardinality(v_old) < v_limit AND NOT v_has_more) THEN
        v_new := ARRAY(SELECT m.position FROM {schema}.messages m
            WHERE m.spool + 0 = v_spool AND m.claim IS NULL AND NOT m.returned AND m.expires - p_now > 0
                AND m.position > v_after
            ORDER BY m.position
            LIMIT CASE WHEN v_is_mixed THEN v_limit ELSE v_limit - cardinality(v_old) END
            FOR UPDATE SKIP LOCKED);
    END IF;
    -- The second: what has become visible since.
    IF v_is_mixed OR v_new[1] < v_old[cardinality(v_old)] THEN
        v_old := ARRAY(SELECT f.position FROM unnest(v_old || v_new) AS f(position)
            ORDER BY f.position LIMIT v_limit);
        v_new := NULL;
    END IF;
    v_last := coalesce(v_new[cardinality(v_new)], 0);
    v_old := v_old || v_new;
    IF cardinality(v_old) = 0 THEN
        IF v_has_more THEN
            facts := json_build_array('more', 0);
        END IF;
    -- Now that the messages are locked: whoever takes from groups sees that, or is seen here.
    ELSIF (SELECT s.grouping FROM {schema}.spools s WHERE s.id = v_spool) IS NOT NULL THEN
        facts := json_build_array('groups', 0);
    ELSE
        facts := json_build_array('done', v_last);
        FOR v_place IN 1 .. cardinality(v_old) BY p_limit LOOP
            v_firsts := v_firsts || v_old[v_place];
        END LOOP;
        RETURN QUERY SELECT facts, g.page FROM {schema}.give_{v}(
            v_spool, p_now, v_old, v_firsts, NULL, p_claims, p_ttl, p_grace, p_retry) AS g(page);
        IF p_after > 0 AND v_last > 0 THEN
            v_head := set_config('zaqar_gevent.head', v_queue || v_last, false);
        END IF;
        IF cardinality(v_firsts) < cardinality(p_claims) THEN
            facts := json_build_array(CASE WHEN v_has_more THEN 'more' ELSE 'done' END, 0);
            RETURN NEXT;
        END IF;
        RETURN;
    END IF;
    RETURN NEXT;
END $$;

-- Whoever changes the groups of a queue holds this lock until the commit. It is waited for before
-- anything else in a transaction. p_names: of queues, each [project, name].
CREATE FUNCTION {schema}.lock_groups_{v}(p_names json) RETURNS TABLE (facts json, document bytea)
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock({groups_lock}, name.key) FROM (
        SELECT DISTINCT hashtext((j.name ->> 0) || '/' || (j.name ->> 1)) AS key
        FROM json_array_elements(p_names) AS j(name) ORDER BY 1) name;
    RETURN QUERY SELECT NULL::json, NULL::bytea;
END $$;

-- Has groups where claims find them, if they have messages up to `p_reached`.
CREATE FUNCTION {schema}.look_at_groups_{v}(
    p_spool bigint, p_grouping bigint, p_mode int, p_reached bigint, p_names text[], p_now float8)
RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_turn bigint := 0;
    v_empty text[];
BEGIN
    IF p_mode >= 2 THEN
        UPDATE {schema}.groupings g SET turn = g.turn + cardinality(p_names)
            WHERE g.id = p_grouping RETURNING g.turn - cardinality(p_names) INTO v_turn;
    END IF;
    WITH seen AS MATERIALIZED (
        SELECT f.name, f.turn, f.first,
            -- PERF: of most there is no free message.
            CASE WHEN f.first IS NOT NULL AND p_mode & 1 = 1 AND f.name <> '' THEN (
                SELECT true FROM {schema}.messages m
                WHERE m.spool + 0 = p_spool AND m.message_group COLLATE "C" = f.name
                    AND m.message_group IS NOT NULL AND num_nulls(m.claim) = 0 LIMIT 1)
                END AS is_held
        FROM (
            SELECT n.name, v_turn + n.number AS turn, (
                SELECT m.position FROM {schema}.messages m
                WHERE m.spool + 0 = p_spool AND m.message_group COLLATE "C" = n.name
                    AND m.message_group IS NOT NULL AND m.claim IS NULL
                    AND m.position <= p_reached AND m.expires - p_now > 0
                ORDER BY m.position LIMIT 1) AS first
            FROM unnest(p_names) WITH ORDINALITY AS n(name, number) OFFSET 0) f),
    found AS (
        INSERT INTO {schema}.message_groups AS g (grouping, name, turn, ready)
            SELECT p_grouping, s.name, s.turn,
                CASE WHEN s.is_held THEN NULL WHEN p_mode >= 2 THEN s.turn ELSE s.first END
            FROM seen s WHERE s.first IS NOT NULL
        ON CONFLICT (grouping, name) DO UPDATE SET ready = CASE
            WHEN excluded.ready IS NULL OR p_mode < 2 THEN excluded.ready ELSE g.turn END)
    SELECT array_agg(s.name) INTO v_empty FROM seen s WHERE s.first IS NULL;
    IF v_empty IS NOT NULL THEN
        DELETE FROM {schema}.message_groups g
            WHERE g.grouping = p_grouping AND g.name = ANY (v_empty);
    END IF;
END $$;

-- Gives a step of messages behind `p_reached` to their groups; the position that is reached then, and
-- whether there are more. One that somebody else has locked is left to another step.
CREATE FUNCTION {schema}.fill_groups_{v}(
    p_spool bigint, p_grouping bigint, p_mode int, p_reached bigint, p_step int, p_now float8,
    OUT reached bigint, OUT has_more bool)
LANGUAGE plpgsql AS $$
DECLARE
    v_count int;
    v_nameless bigint[];
    v_locked bigint[];
    v_names text[];
BEGIN
    SELECT count(*), max(f.position), array_agg(f.position) FILTER (WHERE f.message_group IS NULL)
        INTO v_count, reached, v_nameless FROM (
        SELECT m.position, m.message_group FROM {schema}.messages m
        WHERE m.spool = p_spool AND m.position > p_reached ORDER BY m.position LIMIT p_step) f;
    has_more := v_count = p_step;
    IF v_count = 0 THEN
        reached := p_reached;
        RETURN;
    END IF;
    IF v_nameless IS NOT NULL THEN
        v_locked := ARRAY(SELECT m.position FROM {schema}.messages m
            WHERE m.spool = p_spool AND m.position = ANY (v_nameless)
            ORDER BY m.position FOR UPDATE SKIP LOCKED);
        IF cardinality(v_locked) < cardinality(v_nameless) THEN
            reached := (SELECT min(n.position) - 1 FROM unnest(v_nameless) AS n(position)
                WHERE n.position <> ALL (v_locked));
            has_more := true;
        END IF;
        UPDATE {schema}.messages m SET message_group = ''
            WHERE m.spool = p_spool AND m.position = ANY (v_locked) AND m.position <= reached;
    END IF;
    IF reached <= p_reached THEN
        reached := p_reached;
        RETURN;
    END IF;
    v_names := ARRAY(SELECT f.name FROM (
            SELECT m.message_group COLLATE "C" AS name, min(m.position) AS first
            FROM {schema}.messages m
            WHERE m.spool = p_spool AND m.position > p_reached AND m.position <= reached
                AND m.message_group IS NOT NULL
            GROUP BY 1) f
        WHERE NOT EXISTS (SELECT 1 FROM {schema}.message_groups g
            WHERE g.grouping = p_grouping AND g.name = f.name)
        ORDER BY f.first);
    UPDATE {schema}.groupings g SET reached = fill_groups_{v}.reached WHERE g.id = p_grouping;
    IF cardinality(v_names) > 0 THEN
        PERFORM {schema}.look_at_groups_{v}(
            p_spool, p_grouping, p_mode, reached, v_names, p_now);
    END IF;
END $$;

-- Like `take`, from a queue with groups, whose lock (`lock_groups`) the caller holds. p_mode: of the
-- queue; -1 to be read from the metadata. p_is_patient: whether nothing is taken before all
-- messages have been given to their groups that might have to be. facts: what it comes to, and
-- positions of dead letters. One of those of `take`, or
--   plain    the queue has no groups any more
--   behind   another step is needed first, of which there may be many
--   wait     others are not over that change what may be taken
CREATE FUNCTION {schema}.take_groups_{v}(
    p_project text, p_queue text, p_now float8, p_limit int, p_most int, p_claims uuid[], p_ttl int,
    p_grace int, p_again bool, p_retry float8[], p_mode int, p_is_patient bool)
RETURNS TABLE (facts json, document bytea)
LANGUAGE plpgsql {settings} AS $$
DECLARE
    STEP CONSTANT int := 1000;
    v_count CONSTANT int := coalesce(cardinality(p_claims), 1);
    v_limit CONSTANT int := p_limit * v_count;
    v_spool bigint;
    v_mark text;
    v_mode int := p_mode;
    v_metadata text;
    v_grouping bigint;
    v_present int;
    v_reached bigint;
    v_began xid8;
    v_created float8;
    v_begin bigint;
    v_ended float8;
    v_is_due bool;
    v_has_ended bool;
    v_has_changed bool;
    v_has_more bool := false;
    v_is_behind bool;
    v_names text[];
    v_ready bigint[];
    v_stale text[];
    v_found bigint[];
    v_groups text[];
    v_worn bigint[];
    v_locked bigint[];
    v_rounds int := 0;
    v_turn bigint;
    v_each int;
    v_size int;
    v_own int;
    v_is_cut bool;
    v_has_repeats bool;
    v_next bigint[];
    v_next_groups text[];
    v_can_walk bool;
    v_firsts bigint[];
    v_places int[];
BEGIN
    -- PERF: as in `take`.
    SELECT f.id, f.mark, f.first, f.ended, f.grouping, f.mode, f.reached, f.began, f.created,
            EXISTS (SELECT 1 FROM {schema}.claims c
                WHERE c.spool + 0 = f.id AND c.expires + 0 <= p_now AND c.expires + 0 > f.ended),
            EXISTS (SELECT 1 FROM {schema}.delayed d
                WHERE d.spool + 0 = f.id AND d.due + 0 <= p_now AND d.due + 0 > f.ended),
            EXISTS (SELECT 1 FROM {schema}.group_changes g WHERE g.spool = f.id),
            EXISTS (SELECT 1 FROM {schema}.messages m
                WHERE m.spool = f.id AND m.position > f.reached),
            CASE WHEN p_mode < 0 OR p_most < 0 THEN (SELECT q.metadata FROM {schema}.queues q
                WHERE q.project = p_project AND q.kind = 'queue' AND q.name = p_queue) END
        INTO v_spool, v_mark, v_begin, v_ended, v_grouping, v_present, v_reached, v_began, v_created,
            v_has_ended, v_is_due, v_has_changed, v_is_behind, v_metadata
        FROM (
            SELECT s.id, s.mark, g.id AS grouping, g.mode, g.reached, g.began, g.created,
                coalesce((SELECT p.place FROM {schema}.floors p
                    WHERE p.kind = 'p' AND p.spool = s.id ORDER BY p.place DESC LIMIT 1), 0) AS first,
                coalesce((SELECT p.place FROM {schema}.floors p
                    WHERE p.kind = 'd' AND p.spool = 0 ORDER BY p.place DESC LIMIT 1), 0)
                    / 1e6::float8 AS ended
            FROM {schema}.spools s LEFT JOIN LATERAL (
                SELECT * FROM {schema}.groupings g WHERE g.spool = s.id OFFSET 0) g ON true
            WHERE s.project = p_project AND s.name = p_queue OFFSET 0) f;
    IF v_mark IS NOT NULL THEN
        PERFORM {schema}.marked_{v}(v_spool, v_mark, p_project, p_queue);
    END IF;
    IF v_spool IS NULL THEN
        RETURN QUERY SELECT json_build_array('done'), E'[]\n'::bytea;
        RETURN;
    END IF;
    IF v_mode < 0 THEN
        v_mode := CASE WHEN strpos(v_metadata, '_groups"') > 0
            THEN {schema}.mode_{v}(v_metadata) ELSE 0 END;
    END IF;
    IF coalesce(v_present, 0) <> v_mode THEN
        UPDATE {schema}.groupings g SET spool = NULL WHERE g.id = v_grouping;
        v_grouping := NULL;
        IF v_mode > 0 THEN
            INSERT INTO {schema}.groupings (spool, mode, began, created)
                VALUES (v_spool, v_mode, pg_current_xact_id(), p_now) RETURNING id INTO v_grouping;
        END IF;
        UPDATE {schema}.spools s SET grouping = v_grouping WHERE s.id = v_spool;
        IF v_mode > 0 THEN
            -- What it sees of others is from before.
            RETURN QUERY SELECT json_build_array('more'), NULL::bytea;
            RETURN;
        END IF;
    END IF;
    IF v_mode = 0 THEN
        RETURN QUERY SELECT json_build_array('plain'), NULL::bytea;
        RETURN;
    END IF;
    IF p_is_patient AND v_reached = 0 AND p_now < v_created + 5
            AND v_began >= pg_snapshot_xmin(pg_current_snapshot()) THEN
        RETURN QUERY SELECT json_build_array('wait'), NULL::bytea;
        RETURN;
    END IF;
    IF p_again THEN
        IF EXISTS (SELECT 1 FROM {schema}.claims c WHERE c.token = p_claims[1]) THEN
            -- The answer was lost.
            RETURN QUERY SELECT json_build_array('done'),
                {schema}.held_{v}(v_spool, p_now, p_claims[1]);
            RETURN;
        END IF;
    END IF;
    IF v_has_ended AND NOT v_is_due THEN
        v_is_due := EXISTS (SELECT 1 FROM {schema}.claims c WHERE c.spool + 0 = v_spool
            AND c.expires + 0 <= p_now AND c.expires + 0 > v_ended AND coalesce(c.waits, false));
    END IF;
    IF v_is_due THEN
        RETURN QUERY SELECT json_build_array('due'), NULL::bytea;
        RETURN;
    END IF;
    IF p_most < 0 AND strpos(v_metadata, '"_max_claim_count"') > 0 THEN
        RETURN QUERY SELECT json_build_array('ask'), NULL::bytea;
        RETURN;
    END IF;
    IF v_has_ended THEN
        v_has_more := {schema}.end_claims_{v}(p_now, v_ended, v_spool, 50);
        IF p_is_patient AND EXISTS (SELECT 1 FROM {schema}.claims c
                WHERE c.spool + 0 = v_spool AND c.expires + 0 <= p_now AND c.expires + 0 > v_ended
                    AND c.waits IS NOT TRUE) THEN
            -- There are more, or somebody else ends them now.
            RETURN QUERY SELECT json_build_array(CASE WHEN v_has_more THEN 'more' ELSE 'wait' END),
                NULL::bytea;
            RETURN;
        END IF;
    END IF;
    IF v_has_changed OR v_has_ended THEN
        WITH gone AS (
            DELETE FROM {schema}.group_changes g WHERE g.ctid = ANY (ARRAY(
                SELECT e.ctid FROM {schema}.group_changes e WHERE e.spool = v_spool LIMIT STEP))
            RETURNING g.name)
        SELECT array_agg(DISTINCT g.name), v_has_more OR count(*) = STEP INTO v_names, v_has_more
            FROM gone g;
        IF v_names IS NOT NULL AND v_mode = 3 THEN
            -- PERF: those that waited for what was held of them have their turn, which a claim finds to be
            -- in vain if there is nothing more.
            WITH freed AS (
                UPDATE {schema}.message_groups g SET ready = g.turn
                WHERE g.grouping = v_grouping AND g.name = ANY (v_names) AND g.ready IS NULL
                    AND (SELECT true FROM {schema}.messages m
                        WHERE m.spool + 0 = v_spool AND m.message_group COLLATE "C" = g.name
                            AND m.message_group IS NOT NULL AND num_nulls(m.claim) = 0 LIMIT 1) IS NULL
                RETURNING g.name)
            SELECT coalesce(array_agg(f.name), '{}') INTO v_groups FROM freed f;
            v_names := CASE WHEN cardinality(v_groups) < cardinality(v_names) THEN ARRAY(
                SELECT n.name FROM unnest(v_names) AS n(name) WHERE n.name <> ALL (v_groups)) END;
        END IF;
        IF v_names IS NOT NULL THEN
            PERFORM {schema}.look_at_groups_{v}(
                v_spool, v_grouping, v_mode, v_reached, v_names, p_now);
        END IF;
    END IF;
    IF v_mode >= 2 AND v_is_behind THEN
        SELECT f.reached, f.has_more INTO v_reached, v_is_behind FROM {schema}.fill_groups_{v}(
            v_spool, v_grouping, v_mode, v_reached, STEP, p_now) f;
        IF v_is_behind AND p_is_patient THEN
            RETURN QUERY SELECT json_build_array('behind'), NULL::bytea;
            RETURN;
        END IF;
    END IF;
    LOOP
        v_rounds := v_rounds + 1;
        SELECT array_agg(f.name), array_agg(f.ready) INTO v_names, v_ready FROM (
            SELECT g.name, g.ready FROM {schema}.message_groups g
            WHERE g.grouping + 0 = v_grouping AND g.ready IS NOT NULL
            ORDER BY g.ready LIMIT v_limit) f;
        v_size := coalesce(cardinality(v_names), 0);
        v_is_cut := v_size = v_limit;
        -- PERF: of several groups, a message is only looked at that may be among the first.
        IF v_mode >= 2 AND v_is_cut THEN
            SELECT array_agg(f.position ORDER BY f.number) FILTER (WHERE f.position IS NOT NULL),
                    array_agg(f.name ORDER BY f.number) FILTER (WHERE f.position IS NOT NULL),
                    array_agg(f.position) FILTER (WHERE p_most > 0 AND f.claim_count >= p_most),
                    array_agg(f.name) FILTER (WHERE f.position IS NULL), false
                INTO v_found, v_groups, v_worn, v_stale, v_has_repeats
                FROM (
                    SELECT n.name, n.number, m.position, m.claim_count
                    FROM unnest(v_names) WITH ORDINALITY AS n(name, number)
                    LEFT JOIN LATERAL (
                        SELECT c.position, c.claim_count FROM {schema}.messages c
                        WHERE c.spool + 0 = v_spool AND c.message_group COLLATE "C" = n.name
                            AND c.message_group IS NOT NULL AND c.claim IS NULL
                            AND c.position > v_begin AND c.expires - p_now > 0
                        ORDER BY c.position LIMIT 1) m ON true) f;
        ELSIF v_mode >= 2 THEN
            v_each := CASE
                WHEN v_size = 0 THEN 1
                WHEN v_size < p_limit THEN
                    CASE WHEN v_mode = 2 THEN greatest(p_limit, (v_limit - 1) / v_size + 1) ELSE p_limit END
                WHEN v_mode = 2 THEN (v_limit - 1) / v_size + 1
                ELSE 1 END;
            WITH f AS MATERIALIZED (
                SELECT n.name, n.number, m.position, m.claim_count,
                    row_number() OVER (PARTITION BY n.number ORDER BY m.position) AS round
                FROM unnest(v_names) WITH ORDINALITY AS n(name, number)
                LEFT JOIN LATERAL (
                    SELECT c.position, c.claim_count FROM {schema}.messages c
                    WHERE c.spool + 0 = v_spool AND c.message_group COLLATE "C" = n.name
                        AND c.message_group IS NOT NULL AND c.claim IS NULL
                        AND c.position > v_begin AND c.expires - p_now > 0
                    ORDER BY c.position LIMIT v_each) m ON true),
            t AS (SELECT f.* FROM f WHERE f.position IS NOT NULL ORDER BY f.round, f.number LIMIT v_limit)
            SELECT (SELECT array_agg(t.position ORDER BY t.round, t.number) FROM t),
                (SELECT array_agg(t.name ORDER BY t.round, t.number) FROM t),
                (SELECT array_agg(t.position) FROM t WHERE p_most > 0 AND t.claim_count >= p_most),
                (SELECT array_agg(f.name) FROM f WHERE f.position IS NULL),
                (SELECT bool_or(f.round > 1 AND f.name <> '') FROM f),
                v_is_cut OR (SELECT bool_or(f.round = v_each) FROM f)
                INTO v_found, v_groups, v_worn, v_stale, v_has_repeats, v_is_cut;
        ELSE
            WITH f AS MATERIALIZED (
                SELECT n.name, n.ready, m.position, m.claim_count,
                    row_number() OVER (PARTITION BY n.ready ORDER BY m.position) AS round
                FROM unnest(v_names, v_ready) AS n(name, ready)
                LEFT JOIN LATERAL (
                    SELECT c.position, c.claim_count FROM {schema}.messages c
                    WHERE c.spool + 0 = v_spool AND c.message_group COLLATE "C" = n.name
                        AND c.message_group IS NOT NULL AND c.claim IS NULL
                        AND c.position >= n.ready AND c.expires - p_now > 0
                        AND c.position <= CASE WHEN v_size = v_limit
                            THEN v_ready[v_limit] ELSE v_reached END
                    ORDER BY c.position
                    LIMIT CASE WHEN n.name = '' THEN v_limit ELSE p_limit END) m ON true),
            t AS (SELECT f.* FROM f WHERE f.position IS NOT NULL ORDER BY f.position LIMIT v_limit)
            SELECT (SELECT array_agg(t.position ORDER BY t.position) FROM t),
                (SELECT array_agg(t.name ORDER BY t.position) FROM t),
                (SELECT array_agg(t.position) FROM t WHERE p_most > 0 AND t.claim_count >= p_most),
                (SELECT array_agg(f.name) FROM f
                    WHERE f.round = 1 AND f.position IS DISTINCT FROM f.ready),
                (SELECT bool_or(f.round > 1 AND f.name <> '') FROM f)
                INTO v_found, v_groups, v_worn, v_stale, v_has_repeats;
        END IF;
        v_size := coalesce(cardinality(v_found), 0);
        v_own := v_size;
        IF v_stale IS NOT NULL AND (v_mode < 2 OR v_size < v_limit) THEN
            -- Their first messages have been deleted, or have expired.
            PERFORM {schema}.look_at_groups_{v}(
                v_spool, v_grouping, v_mode, v_reached, v_stale, p_now);
            v_is_behind := v_is_behind OR v_rounds >= STEP;
            EXIT WHEN v_rounds >= STEP;
            CONTINUE;
        END IF;
        EXIT WHEN NOT v_is_behind OR v_size >= v_limit OR v_mode >= 2 OR v_rounds >= 20;
        -- PERF: the next messages are taken as they are where no group of theirs has one before them.
        SELECT array_agg(f.position ORDER BY f.position), array_agg(f.name ORDER BY f.position),
                bool_and(f.claim IS NULL AND f.expires - p_now > 0
                    AND (p_most <= 0 OR f.claim_count < p_most)),
                coalesce(v_has_repeats, false) OR count(f.name) > count(DISTINCT f.name)
            INTO v_next, v_next_groups, v_can_walk, v_has_repeats FROM (
            SELECT m.position, m.message_group AS name, m.claim, m.expires, m.claim_count
            FROM {schema}.messages m
            WHERE m.spool = v_spool AND m.position > v_reached AND m.position > v_begin
            ORDER BY m.position LIMIT v_limit - v_size) f;
        IF v_can_walk THEN
            -- In one statement, since a message may be released meanwhile.
            v_can_walk := NOT EXISTS (SELECT 1 FROM unnest(v_next_groups) AS n(name)
                WHERE n.name IS NOT NULL AND (
                    (SELECT true FROM {schema}.messages m
                        WHERE m.spool + 0 = v_spool AND m.message_group COLLATE "C" = n.name
                            AND m.message_group IS NOT NULL AND num_nulls(m.claim) = 0 LIMIT 1)
                    OR (SELECT true FROM {schema}.messages m
                        WHERE m.spool + 0 = v_spool AND m.message_group COLLATE "C" = n.name
                            AND m.message_group IS NOT NULL AND m.claim IS NULL
                            AND m.position <= v_reached LIMIT 1)));
        END IF;
        IF v_can_walk THEN
            v_is_behind := cardinality(v_next) = v_limit - v_size;
            v_found := v_found || v_next;
            v_groups := v_groups || array_replace(v_next_groups, NULL, '');
            v_size := cardinality(v_found);
            EXIT;
        END IF;
        v_is_behind := v_next IS NOT NULL;
        -- What has been found is given first.
        EXIT WHEN v_size >= p_limit OR NOT v_is_behind;
        SELECT f.reached, f.has_more INTO v_reached, v_is_behind FROM {schema}.fill_groups_{v}(
            v_spool, v_grouping, v_mode, v_reached, STEP, p_now) f;
    END LOOP;
    IF v_worn IS NOT NULL THEN
        RETURN QUERY SELECT json_build_array('worn', to_json(v_worn)), NULL::bytea;
        RETURN;
    END IF;
    v_is_cut := v_is_cut OR v_has_more OR v_is_behind OR v_size = v_limit;
    IF v_count > 1 AND v_mode & 1 = 1 AND v_has_repeats THEN
        -- What one claim is given of a group holds up the others of it.
        v_next := v_found;
        v_next_groups := v_groups;
        v_found := '{}';
        v_groups := '{}';
        FOR v_place IN 1 .. v_size LOOP
            IF v_next_groups[v_place] <> '' AND v_next_groups[v_place] = ANY (
                    v_groups[:cardinality(v_found) / p_limit * p_limit]) THEN
                -- What is not given must not be passed by.
                EXIT WHEN v_place > v_own;
            ELSE
                v_found := v_found || v_next[v_place];
                v_groups := v_groups || v_next_groups[v_place];
            END IF;
        END LOOP;
        v_own := least(v_own, cardinality(v_found));
        v_size := cardinality(v_found);
    END IF;
    IF v_size < v_limit AND v_is_cut AND (p_is_patient OR v_size >= p_limit) THEN
        IF v_size < p_limit THEN
            RETURN QUERY SELECT json_build_array(CASE WHEN v_is_behind THEN 'behind' ELSE 'more' END),
                NULL::bytea;
            RETURN;
        END IF;
        -- Those that can be given all that they may have.
        v_size := v_size / p_limit * p_limit;
        v_found := v_found[:v_size];
        v_groups := v_groups[:v_size];
        v_own := least(v_own, v_size);
    END IF;
    facts := json_build_array('done');
    document := E'[]\n';
    IF v_size = 0 THEN
        RETURN NEXT;
        RETURN;
    END IF;
    v_locked := ARRAY(SELECT m.position FROM {schema}.messages m
        WHERE m.spool = v_spool AND m.position = ANY (v_found) AND m.claim IS NULL
            AND m.expires - p_now > 0
        ORDER BY m.position FOR UPDATE SKIP LOCKED);
    IF cardinality(v_locked) < v_size THEN
        -- Somebody deletes or moves a message now. What follows it in its group has to wait.
        IF v_size > v_own THEN
            PERFORM {schema}.fill_groups_{v}(
                v_spool, v_grouping, v_mode, v_reached, STEP, p_now);
            RETURN QUERY SELECT json_build_array('behind'), NULL::bytea;
            RETURN;
        ELSIF v_count > 1 THEN
            FOR v_place IN 1 .. v_count LOOP
                RETURN QUERY SELECT t.facts, t.document FROM {schema}.take_groups_{v}(
                    p_project, p_queue, p_now, p_limit, p_most, p_claims[v_place:v_place], p_ttl,
                    p_grace, p_again, p_retry, p_mode, p_is_patient) t;
            END LOOP;
            RETURN;
        END IF;
        SELECT coalesce(array_agg(f.position ORDER BY f.number), '{}'),
                coalesce(array_agg(f.name ORDER BY f.number), '{}')
            INTO v_found, v_groups
            FROM unnest(v_found, v_groups) WITH ORDINALITY AS f(position, name, number)
            WHERE f.position = ANY (v_locked) AND (v_mode & 1 = 0 OR f.name = '' OR NOT EXISTS (
                SELECT 1 FROM unnest(v_found, v_groups) AS o(position, name)
                WHERE o.name = f.name AND o.position < f.position AND o.position <> ALL (v_locked)));
        v_size := cardinality(v_found);
        v_own := v_size;
        IF v_size = 0 THEN
            facts := json_build_array(CASE WHEN p_is_patient THEN 'wait' ELSE 'done' END);
            RETURN NEXT;
            RETURN;
        END IF;
    END IF;
    IF v_size > v_own THEN
        UPDATE {schema}.groupings g SET reached = v_found[v_size] WHERE g.id = v_grouping;
        IF '' = ANY (v_groups[v_own + 1:]) THEN
            UPDATE {schema}.messages m SET message_group = '' WHERE m.spool = v_spool
                AND m.position = ANY (v_found[v_own + 1:]) AND m.message_group IS NULL;
        END IF;
    END IF;
    IF v_mode < 2 OR p_claims IS NULL THEN
        v_firsts := ARRAY(SELECT v_found[f.place] FROM generate_series(1, v_size, p_limit) AS f(place));
    ELSE
        SELECT array_agg(f.position ORDER BY f.position),
                array_agg(((f.number - 1) / p_limit + 1)::int ORDER BY f.position)
            INTO v_firsts, v_places
            FROM unnest(v_found) WITH ORDINALITY AS f(position, number);
    END IF;
    RETURN QUERY SELECT facts, g.page FROM {schema}.give_{v}(
        v_spool, p_now, v_found, v_firsts, v_places, p_claims[:(v_size - 1) / p_limit + 1], p_ttl,
        p_grace, p_retry) AS g(page);
    -- Where they are found from now on. PERF: that they are held is clear.
    IF v_mode >= 2 THEN
        UPDATE {schema}.groupings g SET turn = g.turn + v_size
            WHERE g.id = v_grouping RETURNING g.turn - v_size INTO v_turn;
        IF v_groups = v_names[:v_size] THEN
            -- PERF: one message of each.
            UPDATE {schema}.message_groups g SET turn = v_turn + width_bucket(g.ready, v_ready),
                    ready = CASE WHEN v_mode = 2 OR p_claims IS NULL OR g.name = ''
                        THEN v_turn + width_bucket(g.ready, v_ready) END
                WHERE g.grouping = v_grouping AND g.name = ANY (v_groups);
        ELSE
            -- The last of several of a group counts.
            v_next_groups := ARRAY(
                SELECT v_groups[f.place] FROM generate_series(v_size, 1, -1) AS f(place));
            UPDATE {schema}.message_groups g SET (turn, ready) = (
                    SELECT f.turn,
                        CASE WHEN v_mode = 2 OR p_claims IS NULL OR g.name = '' THEN f.turn END
                    FROM (VALUES (v_turn + v_size + 1
                        - array_position(v_next_groups, g.name COLLATE "C"))) AS f(turn))
                WHERE g.grouping = v_grouping AND g.name = ANY (v_groups);
        END IF;
    ELSIF p_claims IS NOT NULL AND v_own > 0 THEN
        UPDATE {schema}.message_groups g SET ready = NULL
            WHERE g.grouping = v_grouping AND g.name = ANY (v_groups[:v_own]) AND g.name <> '';
    END IF;
    IF v_size > v_limit - p_limit THEN
        RETURN;
    ELSIF v_is_cut THEN
        RETURN QUERY SELECT t.facts, t.document FROM {schema}.take_groups_{v}(
            p_project, p_queue, p_now, p_limit, p_most, p_claims[(v_size - 1) / p_limit + 2:], p_ttl,
            p_grace, p_again, p_retry, p_mode, p_is_patient) t;
    ELSE
        RETURN NEXT;
    END IF;
END $$;

CREATE FUNCTION {schema}.held_{v}(p_spool bigint, p_now float8, p_claim uuid) RETURNS bytea
LANGUAGE plpgsql STABLE {settings} AS $$
DECLARE
    v_leases uuid[] := {schema}.leases_{v}(p_spool, p_now, p_claim);
BEGIN
    RETURN (SELECT {schema}.page_{v}(string_agg(f.head, ','), string_agg(f.body, '')) FROM (
        SELECT m.body, {schema}.head_{v}(
            m.number, m.position, p_now, m.created, m.ttl, m.claim_count, p_claim, m.checksum,
            m.encoding, octet_length(m.body),
                m.attributes, m.message_group, m.dead_letter) AS head
        FROM {schema}.messages m WHERE m.claim = ANY (v_leases) ORDER BY m.position) f);
END $$;

-- facts: the time to live and the end of a claim; null for one that is not there or has expired.
CREATE FUNCTION {schema}.get_claim_{v}(p_project text, p_queue text, p_now float8, p_claim uuid)
RETURNS TABLE (facts json, document bytea)
LANGUAGE plpgsql STABLE {settings} AS $$
DECLARE
    v_spool bigint := {schema}.spool_{v}(p_project, p_queue);
    v_leases uuid[] := {schema}.leases_{v}(v_spool, p_now, p_claim);
BEGIN
    -- The lease that ends first, of those that hold messages.
    RETURN QUERY SELECT json_build_array(c.ttl, c.expires),
            {schema}.held_{v}(v_spool, p_now, p_claim)
        FROM {schema}.claims c WHERE c.token = ANY (v_leases)
        ORDER BY NOT EXISTS (SELECT 1 FROM {schema}.messages m WHERE m.claim = c.token), c.expires
        LIMIT 1;
END $$;

CREATE FUNCTION {schema}.renew_{v}(
    p_project text, p_queue text, p_now float8, p_claim uuid, p_ttl int, p_grace int)
RETURNS TABLE (facts json, document bytea)
LANGUAGE plpgsql {settings} AS $$
DECLARE
    v_end float8 := p_now + p_ttl;
    v_leases uuid[] := {schema}.leases_{v}(
        {schema}.spool_{v}(p_project, p_queue), p_now, p_claim);
BEGIN
    UPDATE {schema}.claims c SET ttl = p_ttl, expires = v_end
        WHERE c.token = ANY (v_leases) AND c.expires - p_now > 0;
    IF FOUND THEN
        UPDATE {schema}.messages m SET ttl = p_ttl + p_grace, expires = v_end + p_grace
            WHERE m.claim = ANY (v_leases) AND m.expires < v_end + p_grace;
        RETURN QUERY SELECT 'true'::json, NULL::bytea;
    END IF;
END $$;

-- facts: when the first of the messages is due, or null where none waits for its retry.
CREATE FUNCTION {schema}.release_{v}(
    p_project text, p_queue text, p_now float8, p_claim uuid, p_delay float8)
RETURNS TABLE (facts json, document bytea)
LANGUAGE plpgsql {settings} AS $$
DECLARE
    v_leases uuid[] := {schema}.leases_{v}(
        {schema}.spool_{v}(p_project, p_queue), p_now, p_claim);
    v_due float8;
BEGIN
    IF cardinality(v_leases) > 0 THEN
        v_due := {schema}.end_leases_{v}(p_now, v_leases, p_now, p_delay);
    END IF;
    RETURN QUERY SELECT to_json(v_due), NULL::bytea;
END $$;

-- Creates a dead letter queue with its first message, unless it, or a topic of that name, exists.
CREATE FUNCTION {schema}.make_dead_{v}(p_project text, p_dead text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO {schema}.queues (project, kind, name, metadata)
        SELECT p_project, 'queue', p_dead, '{}' WHERE NOT EXISTS (SELECT 1 FROM {schema}.queues q
            WHERE q.project = p_project AND q.kind IN ('queue', 'topic') AND q.name = p_dead)
        ON CONFLICT DO NOTHING;
END $$;

-- Moves messages behind those of a dead letter queue, whose lock the caller holds. p_reason: in JSON,
-- which has a way to write the character NUL.
CREATE FUNCTION {schema}.move_dead_{v}(
    p_now float8, p_queue text, p_spool bigint, p_positions bigint[], p_dead bigint, p_ttl int,
    p_reason text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_base bigint := {schema}.next_base_{v}();
    v_count int;
    v_held int;
BEGIN
    WITH dead AS (
        DELETE FROM {schema}.messages m
        WHERE m.spool = p_spool AND m.position = ANY (p_positions) RETURNING m.*),
    moved AS (
        INSERT INTO {schema}.messages
            (spool, position, created, expires, client, ttl, claim_count, encoding, checksum,
            attributes, message_group, dead_letter, body)
        SELECT p_dead, v_base + row_number() OVER (ORDER BY d.position), d.created,
            coalesce(p_now + p_ttl, d.expires), d.client, coalesce(p_ttl, d.ttl), d.claim_count,
            d.encoding, d.checksum, d.attributes, nullif(d.message_group, ''),
            '{"queue":' || to_json(p_queue)
                || ',"message_id":"' || lpad(to_hex(coalesce(d.number, d.position)), 16, '0')
                || '","claim_count":' || d.claim_count
                || ',"at":"' || to_char(
                    to_timestamp(p_now) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
                || '","reason":' || coalesce(p_reason, 'null') || ',"ttl":' || d.ttl || '}', d.body
        FROM dead d)
    SELECT count(*), count(d.claim) INTO v_count, v_held FROM dead d;
    INSERT INTO {schema}.changes (spool, total, held)
        VALUES (p_spool, -v_count, -v_held), (p_dead, v_count, 0);
END $$;

-- Moves dead letters behind the messages of another queue, which is created if `p_makes`; facts: how many.
-- p_positions: only these; null for all.
CREATE FUNCTION {schema}.bury_{v}(
    p_project text, p_queue text, p_now float8, p_most int, p_dead text, p_ttl int, p_makes bool,
    p_limit int, p_positions bigint[])
RETURNS TABLE (facts json, document bytea)
LANGUAGE plpgsql {settings} AS $$
DECLARE
    v_spool bigint := {schema}.spool_{v}(p_project, p_queue);
    v_begin bigint := {schema}.floor_{v}('p', v_spool);
    v_positions bigint[];
BEGIN
    PERFORM {schema}.lock_{v}(p_project, p_dead);
    IF p_positions IS NULL THEN
        v_positions := ARRAY(SELECT m.position FROM {schema}.messages m
            WHERE m.spool + 0 = v_spool AND m.claim IS NULL AND m.returned
                AND m.claim_count >= p_most AND m.expires - p_now > 0
                AND m.position > v_begin
            ORDER BY m.position LIMIT p_limit FOR UPDATE SKIP LOCKED);
    ELSE
        v_positions := ARRAY(SELECT m.position FROM {schema}.messages m
            WHERE m.spool = v_spool AND m.position = ANY (p_positions) AND m.claim IS NULL
                AND m.claim_count >= p_most AND m.expires - p_now > 0
            ORDER BY m.position FOR UPDATE SKIP LOCKED);
    END IF;
    IF cardinality(v_positions) > 0 THEN
        IF p_makes THEN
            PERFORM {schema}.make_dead_{v}(p_project, p_dead);
        END IF;
        PERFORM {schema}.move_dead_{v}(
            p_now, p_queue, v_spool, v_positions,
            coalesce({schema}.spool_{v}(p_project, p_dead),
                {schema}.make_spool_{v}(p_project, p_dead)), p_ttl, NULL);
    END IF;
    RETURN QUERY SELECT to_json(cardinality(v_positions)), NULL::bytea;
END $$;

-- facts: 0, or why the message cannot be deleted: 1 it is claimed, 2 it is not claimed, 3 another
-- claim has it, 4 there is no such claim.
CREATE FUNCTION {schema}.delete_{v}(
    p_project text, p_queue text, p_now float8, p_number bigint, p_claim uuid)
RETURNS TABLE (facts json, document bytea)
LANGUAGE plpgsql {settings} AS $$
DECLARE
    v_spool bigint := {schema}.spool_{v}(p_project, p_queue);
    v_position bigint := coalesce(
        (SELECT m.position FROM {schema}.messages m WHERE m.number = p_number), p_number);
    v_was_held bool;
    v_holder uuid;
    v_found bool;
    v_reason int := 0;
BEGIN
    IF p_claim IS NULL THEN
        DELETE FROM {schema}.messages m
            WHERE m.spool = v_spool AND m.position = v_position
                AND coalesce(m.number, m.position) = p_number
                AND {schema}.holder_{v}(m.claim, p_now) IS NULL
            RETURNING m.claim IS NOT NULL AND m.retry_at IS NULL INTO v_was_held;
        v_found := FOUND;
        IF NOT v_found THEN
            DELETE FROM {schema}.delayed d WHERE d.number = p_number AND d.spool = v_spool;
            v_found := FOUND;
        END IF;
    ELSE
        DELETE FROM {schema}.messages m
            WHERE m.spool = v_spool AND m.position = v_position
                AND coalesce(m.number, m.position) = p_number
                AND {schema}.holder_{v}(m.claim, p_now) = p_claim
            RETURNING true INTO v_was_held;
        v_found := FOUND;
    END IF;
    IF v_found THEN
        INSERT INTO {schema}.changes (spool, total, held)
            VALUES (v_spool, -1, CASE WHEN v_was_held THEN -1 ELSE 0 END);
    ELSE
        SELECT {schema}.holder_{v}(m.claim, p_now) INTO v_holder
            FROM {schema}.messages m
            WHERE m.spool = v_spool AND m.position = v_position AND m.expires - p_now > 0
                AND coalesce(m.number, m.position) = p_number;
        IF FOUND OR (p_claim IS NOT NULL AND EXISTS (SELECT 1 FROM {schema}.delayed d
                WHERE d.number = p_number AND d.spool = v_spool AND d.expires - p_now > 0)) THEN
            v_reason := CASE
                WHEN p_claim IS NULL THEN 1
                WHEN v_holder IS NULL THEN 2
                WHEN cardinality({schema}.leases_{v}(v_spool, p_now, p_claim)) = 0 THEN 4
                ELSE 3 END;
        END IF;
    END IF;
    RETURN QUERY SELECT to_json(v_reason), NULL::bytea;
END $$;

-- Deletes some messages, each for a caller of its own: a row for each as from `delete`, in their order; the
-- last is that of all further ones as well. p_claims: of each the claim, or null.
CREATE FUNCTION {schema}.delete_each_{v}(
    p_project text, p_queue text, p_now float8, p_numbers bigint[], p_claims uuid[])
RETURNS TABLE (facts json, document bytea)
LANGUAGE plpgsql {settings} AS $$
DECLARE
    v_spool bigint := {schema}.spool_{v}(p_project, p_queue);
    v_gone bigint[];
BEGIN
    -- PERF: the usual ones, which are held as their callers say.
    WITH gone AS (
        DELETE FROM {schema}.messages m
        WHERE m.spool = v_spool AND m.position = ANY (p_numbers) AND m.number IS NULL
            AND m.claim IS NOT DISTINCT FROM p_claims[array_position(p_numbers, m.position)]
            AND (m.claim IS NULL OR (SELECT c.expires - p_now > 0 FROM {schema}.claims c
                WHERE c.token = m.claim AND c.parent IS NULL AND c.waits IS NOT TRUE))
        RETURNING m.position, m.claim),
    counted AS (
        INSERT INTO {schema}.changes (spool, total, held)
            SELECT v_spool, -count(*), -count(g.claim) FROM gone g HAVING count(*) > 0)
    SELECT array_agg(g.position) INTO v_gone FROM gone g;
    facts := '0';
    IF cardinality(v_gone) = cardinality(p_numbers) THEN
        RETURN NEXT;
        RETURN;
    END IF;
    FOR v_place IN 1 .. cardinality(p_numbers) LOOP
        facts := '0';
        IF coalesce(p_numbers[v_place] <> ALL (v_gone), true) THEN
            SELECT d.facts INTO facts FROM {schema}.delete_{v}(
                p_project, p_queue, p_now, p_numbers[v_place], p_claims[v_place]) d;
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;

-- Settles messages of claims, one by one. p_entries: {k: d to delete, r to release, x to reject, e to
-- extend; i: number, c: claim, y: delay, w: reason in JSON, t: ttl, g: grace}. p_dead: where rejected messages
-- go, or null; p_ttl: their time to live there, or null for their own; p_makes: whether that queue is
-- created with the first.
--
-- facts: of each 0, what `delete` says, or 5 where the claim does not hold the message; and when the
-- first of them is due that waits for its retry, or null.
CREATE FUNCTION {schema}.settle_{v}(
    p_project text, p_queue text, p_now float8, p_entries json, p_dead text, p_ttl int, p_makes bool)
RETURNS TABLE (facts json, document bytea)
LANGUAGE plpgsql {settings} AS $$
DECLARE
    v_spool bigint := {schema}.spool_{v}(p_project, p_queue);
    v_dead bigint;
    v_outcome int;
    v_outcomes int[] := '{}';
    v_position bigint;
    v_lease uuid;
    v_token uuid;
    v_end float8;
    v_due float8;
    r record;
BEGIN
    IF p_dead IS NOT NULL THEN
        PERFORM {schema}.lock_{v}(p_project, p_dead);
        v_dead := coalesce({schema}.spool_{v}(p_project, p_dead),
            {schema}.make_spool_{v}(p_project, p_dead));
    END IF;
    FOR r IN SELECT * FROM json_to_recordset(p_entries) AS e(
            k text, i bigint, c uuid, y float8, w text, t int, g int) LOOP
        v_outcome := 0;
        IF r.k = 'd' THEN
            SELECT d.facts::text::int INTO v_outcome
                FROM {schema}.delete_{v}(p_project, p_queue, p_now, r.i, r.c) d;
            v_outcomes := v_outcomes || v_outcome;
            CONTINUE;
        END IF;
        v_position := coalesce(
            (SELECT m.position FROM {schema}.messages m WHERE m.number = r.i), r.i);
        SELECT m.claim INTO v_lease FROM {schema}.messages m
            WHERE m.spool = v_spool AND m.position = v_position
                AND coalesce(m.number, m.position) = r.i AND m.expires - p_now > 0
                AND {schema}.holder_{v}(m.claim, p_now) = r.c
            FOR UPDATE SKIP LOCKED;
        IF NOT FOUND THEN
            v_outcome := 5;
        ELSIF r.k = 'r' THEN
            v_due := least(v_due, {schema}.defer_{v}(
                p_now, ARRAY[v_lease], ARRAY[v_position], p_now, r.y));
            UPDATE {schema}.messages m SET claim = NULL, returned = true
                WHERE m.spool = v_spool AND m.position = v_position AND m.claim = v_lease;
            IF FOUND THEN
                INSERT INTO {schema}.changes (spool, total, held) VALUES (v_spool, 0, -1);
            END IF;
        ELSIF r.k = 'x' THEN
            IF p_makes THEN
                PERFORM {schema}.make_dead_{v}(p_project, p_dead);
            END IF;
            PERFORM {schema}.move_dead_{v}(
                p_now, p_queue, v_spool, ARRAY[v_position], v_dead, p_ttl, r.w);
        ELSE
            v_end := p_now + r.t;
            v_token := (SELECT c.token FROM {schema}.claims c
                WHERE c.token = v_lease AND c.expires - v_end = 0);
            IF v_token IS NULL THEN
                v_token := (SELECT c.token FROM {schema}.claims c WHERE c.parent = r.c
                    AND c.spool = v_spool AND c.expires - v_end = 0 LIMIT 1);
            END IF;
            IF v_token IS NULL THEN
                INSERT INTO {schema}.claims (token, spool, expires, ttl, parent, retry)
                    SELECT gen_random_uuid(), v_spool, v_end, r.t, r.c, c.retry
                    FROM {schema}.claims c WHERE c.token = v_lease
                    RETURNING token INTO v_token;
            END IF;
            UPDATE {schema}.messages m SET claim = v_token,
                    ttl = CASE WHEN m.expires < v_end + r.g THEN r.t + r.g ELSE m.ttl END,
                    expires = greatest(m.expires, v_end + r.g)
                WHERE m.spool = v_spool AND m.position = v_position AND m.claim = v_lease;
        END IF;
        v_outcomes := v_outcomes || v_outcome;
    END LOOP;
    RETURN QUERY SELECT json_build_array(to_json(v_outcomes), v_due), NULL::bytea;
END $$;

-- facts: null, or which message is not claimed ([number]) or held by another claim ([number, claim])
-- or which claim holds none of them ([null, claim]); then nothing is deleted. p_claims: null for any or none.
CREATE FUNCTION {schema}.delete_many_{v}(
    p_project text, p_queue text, p_now float8, p_numbers bigint[], p_claims uuid[])
RETURNS TABLE (facts json, document bytea)
LANGUAGE plpgsql {settings} AS $$
DECLARE
    v_spool bigint := {schema}.spool_{v}(p_project, p_queue);
    v_locked bigint[];
    v_count int;
    v_claim uuid;
    v_leases uuid[];
    v_own uuid[] := '{}';
    v_late int;
    r record;
BEGIN
    IF p_claims IS NOT NULL THEN
        v_locked := ARRAY(SELECT m.position FROM {schema}.messages m
            WHERE m.spool = v_spool AND m.position = ANY (p_numbers || ARRAY(
                    SELECT n.position FROM {schema}.messages n WHERE n.number = ANY (p_numbers)))
                AND coalesce(m.number, m.position) = ANY (p_numbers)
            ORDER BY m.position FOR UPDATE);
    END IF;
    IF cardinality(v_locked) > 0 THEN
        FOREACH v_claim IN ARRAY p_claims LOOP
            v_leases := {schema}.leases_{v}(v_spool, p_now, v_claim);
            v_own := v_own || v_leases;
            IF NOT EXISTS (SELECT 1 FROM {schema}.messages m
                    WHERE m.spool = v_spool AND m.position = ANY (v_locked)
                        AND m.claim = ANY (v_leases) AND m.expires - p_now > 0) THEN
                IF EXISTS (SELECT 1 FROM {schema}.messages m WHERE m.spool = v_spool
                        AND m.position = ANY (v_locked) AND m.expires - p_now > 0) THEN
                    RETURN QUERY SELECT json_build_array(NULL, v_claim), NULL::bytea;
                    RETURN;
                END IF;
            END IF;
        END LOOP;
        FOR r IN SELECT coalesce(m.number, m.position) AS number,
                    {schema}.holder_{v}(m.claim, p_now) AS holder
                FROM {schema}.messages m
                WHERE m.spool = v_spool AND m.position = ANY (v_locked) AND m.expires - p_now > 0
                    AND (m.claim IS NULL OR m.claim <> ALL (v_own))
                ORDER BY m.position LOOP
            IF r.holder IS NULL THEN
                RETURN QUERY SELECT json_build_array(r.number), NULL::bytea;
                RETURN;
            ELSIF r.holder <> ALL (p_claims) THEN
                RETURN QUERY SELECT json_build_array(r.number, r.holder), NULL::bytea;
                RETURN;
            END IF;
        END LOOP;
    END IF;
    WITH gone AS (
        DELETE FROM {schema}.messages m
        WHERE m.spool = v_spool AND m.position = ANY (coalesce(v_locked, p_numbers))
            AND (m.number IS NULL OR p_claims IS NOT NULL)
        RETURNING m.claim, m.retry_at),
    counted AS (
        INSERT INTO {schema}.changes (spool, total, held)
            SELECT v_spool, -count(*), -count(g.claim) FILTER (WHERE g.retry_at IS NULL)
            FROM gone g HAVING count(*) > 0)
    SELECT count(*) INTO v_count FROM gone g;
    IF v_count < cardinality(p_numbers) THEN
        -- PERF: few messages were delayed.
        IF p_claims IS NULL THEN
            WITH gone AS (
                DELETE FROM {schema}.messages m
                WHERE m.number = ANY (p_numbers) AND m.spool = v_spool
                RETURNING m.claim, m.retry_at)
            INSERT INTO {schema}.changes (spool, total, held)
                SELECT v_spool, -count(*), -count(g.claim) FILTER (WHERE g.retry_at IS NULL)
                FROM gone g HAVING count(*) > 0;
        END IF;
        DELETE FROM {schema}.delayed d WHERE d.number = ANY (p_numbers) AND d.spool = v_spool;
        GET DIAGNOSTICS v_late = ROW_COUNT;
        IF v_late > 0 THEN
            INSERT INTO {schema}.changes (spool, total, held) VALUES (v_spool, -v_late, 0);
        END IF;
    END IF;
    RETURN NEXT;
END $$;

-- Deletes messages for one or several callers, each under a claim: a row for each caller as from
-- `delete_many`, in their order; the last is that of all further ones as well. p_owners: for each number
-- the claim of its caller. p_claims: these claims, which differ.
CREATE FUNCTION {schema}.delete_held_{v}(
    p_project text, p_queue text, p_now float8, p_numbers bigint[], p_owners uuid[], p_claims uuid[])
RETURNS TABLE (facts json, document bytea)
LANGUAGE plpgsql {settings} AS $$
DECLARE
    v_spool bigint := {schema}.spool_{v}(p_project, p_queue);
    v_locked bigint[];
    v_groups text[];
    v_alive int;
    v_claim uuid;
    v_notes text;
BEGIN
    -- PERF: whether each claim holds all of its own, as it mostly does.
    SELECT array_agg(f.position),
            array_agg(f.message_group) FILTER (WHERE f.message_group IS NOT NULL),
            (SELECT count(*) FROM {schema}.claims c
            WHERE c.token = ANY (p_claims) AND c.parent IS NULL AND c.waits IS NOT TRUE
                AND c.spool = v_spool AND c.expires - p_now > 0)
        INTO v_locked, v_groups, v_alive FROM (
            SELECT m.position, m.message_group FROM {schema}.messages m
            WHERE m.spool = v_spool AND m.position = ANY (p_numbers) AND m.number IS NULL
                AND m.claim = p_owners[array_position(p_numbers, m.position)]
            ORDER BY m.position FOR UPDATE) f;
    IF cardinality(v_locked) = cardinality(p_numbers) AND v_alive = cardinality(p_claims) THEN
        IF v_groups IS NOT NULL THEN
            -- PERF: only a group in order waits for what is held of it.
            INSERT INTO {schema}.group_changes (spool, name)
                SELECT DISTINCT v_spool, n.name FROM unnest(v_groups) AS n(name)
                WHERE n.name <> '' AND EXISTS (SELECT 1 FROM {schema}.spools s CROSS JOIN LATERAL (
                        SELECT g.mode FROM {schema}.groupings g WHERE g.id = s.grouping OFFSET 0) g
                    WHERE s.id = v_spool AND g.mode & 1 = 1);
            v_notes := set_config('zaqar_gevent.notes', 'function', true);
        END IF;
        WITH gone AS (
            DELETE FROM {schema}.messages m WHERE m.spool = v_spool AND m.position = ANY (v_locked))
        INSERT INTO {schema}.changes (spool, total, held)
            VALUES (v_spool, -cardinality(v_locked), -cardinality(v_locked));
        IF v_groups IS NOT NULL THEN
            v_notes := set_config('zaqar_gevent.notes', '', true);
        END IF;
        RETURN NEXT;
        RETURN;
    END IF;
    FOREACH v_claim IN ARRAY p_claims LOOP
        RETURN QUERY SELECT d.facts, d.document FROM {schema}.delete_many_{v}(
            p_project, p_queue, p_now, ARRAY(
                SELECT o.number FROM unnest(p_numbers, p_owners) AS o(number, claim)
                WHERE o.claim = v_claim), ARRAY[v_claim]) d;
    END LOOP;
END $$;

-- Makes delayed messages visible that are due, in that order, and what waited for its retry, where it
-- was. The first row has as facts how many of the former, whether more are due, and how many of the
-- latter; where the queue has subscriptions, the others are these messages, each
-- with its delay and what it has passed as facts.
CREATE FUNCTION {schema}.place_{v}(
    p_project text, p_queue text, p_now float8, p_limit int, p_bytes int)
RETURNS TABLE (facts json, document bytea)
LANGUAGE plpgsql {settings} AS $$
DECLARE
    v_spool bigint;
    v_ended float8 := {schema}.time_floor_{v}('d');
    v_base bigint;
    v_numbers bigint[];
    v_waits uuid[];
    v_again int := 0;
    v_has_subscriptions bool;
BEGIN
    PERFORM {schema}.lock_{v}(p_project, p_queue);
    v_spool := {schema}.spool_{v}(p_project, p_queue);
    v_numbers := ARRAY(SELECT f.number FROM (
        SELECT d.number, sum(octet_length(d.body)) OVER (ORDER BY d.due, d.number) AS size,
            octet_length(d.body) AS own
        FROM (SELECT * FROM {schema}.delayed e WHERE e.spool + 0 = v_spool AND e.due + 0 <= p_now
                AND e.due + 0 > v_ended
            ORDER BY e.due + 0, e.number LIMIT p_limit FOR UPDATE) d) f WHERE f.size - f.own < p_bytes);
    v_has_subscriptions := EXISTS (SELECT 1 FROM {schema}.subscriptions s
        WHERE s.project = p_project AND s.source = p_queue AND s.expires - p_now > 0);
    v_waits := ARRAY(SELECT c.token FROM {schema}.claims c
        WHERE c.spool + 0 = v_spool AND c.expires + 0 <= p_now AND c.expires + 0 > v_ended
            AND coalesce(c.waits, false)
        ORDER BY c.expires + 0 LIMIT p_limit FOR UPDATE);
    IF cardinality(v_waits) > 0 THEN
        DELETE FROM {schema}.claims c WHERE c.token = ANY (v_waits);
        UPDATE {schema}.messages m SET claim = NULL, retry_at = NULL WHERE m.claim = ANY (v_waits);
        GET DIAGNOSTICS v_again = ROW_COUNT;
    END IF;
    RETURN QUERY SELECT json_build_array(cardinality(v_numbers), EXISTS (
                SELECT 1 FROM {schema}.delayed d WHERE d.spool + 0 = v_spool AND d.due + 0 <= p_now
                    AND d.due + 0 > v_ended AND d.number <> ALL (v_numbers))
            OR cardinality(v_waits) = p_limit, v_again), NULL::bytea;
    IF v_has_subscriptions THEN
        RETURN QUERY SELECT json_build_array(d.due - d.created, d.passed),
                {schema}.page_{v}({schema}.head_{v}(
                    d.number, NULL, p_now, d.created, d.ttl, 0, NULL, d.checksum, d.encoding,
                    octet_length(d.body),
                d.attributes, d.message_group, NULL), d.body)
            FROM {schema}.delayed d WHERE d.number = ANY (v_numbers) AND d.expires - p_now > 0
            ORDER BY d.due, d.number;
    END IF;
    IF cardinality(v_numbers) > 0 THEN
        v_base := {schema}.next_base_{v}();
        WITH gone AS (
            DELETE FROM {schema}.delayed d WHERE d.number = ANY (v_numbers) RETURNING d.*)
        INSERT INTO {schema}.messages
            (spool, position, number, created, expires, client, ttl, encoding, checksum, attributes,
            message_group, body)
        SELECT g.spool, v_base + row_number() OVER (ORDER BY g.due, g.number), g.number, g.created,
            g.expires, g.client, g.ttl, g.encoding, g.checksum, g.attributes, g.message_group, g.body
        FROM gone g;
    END IF;
END $$;

-- Puts messages back that were taken: {i: id, p: position or null, t: ttl, c: created, n: claims,
-- s: checksum, e: encoding, a: attributes, g: group, l: dead letter}.
CREATE FUNCTION {schema}.restore_{v}(
    p_project text, p_queue text, p_messages json, p_bodies bytea[])
RETURNS TABLE (facts json, document bytea)
LANGUAGE plpgsql {settings} AS $$
DECLARE
    v_spool bigint;
    v_begin bigint;
    v_grouping bigint;
    v_count int;
BEGIN
    PERFORM {schema}.lock_{v}(p_project, p_queue);
    v_spool := {schema}.spool_{v}(p_project, p_queue);
    IF v_spool IS NOT NULL THEN
        v_begin := (SELECT min(coalesce(m.p, m.i)) - 1
            FROM json_to_recordset(p_messages) AS m(i bigint, p bigint));
        IF v_begin < {schema}.floor_{v}('p', v_spool) THEN
            PERFORM {schema}.raise_floor_{v}('p', v_spool, 0, v_begin, true);
        END IF;
        v_grouping := (SELECT s.grouping FROM {schema}.spools s WHERE s.id = v_spool);
        INSERT INTO {schema}.messages (spool, position, number, created, expires, ttl, claim_count,
            encoding, returned, checksum, attributes, message_group, dead_letter, body)
        SELECT v_spool, coalesce(m.p, m.i), CASE WHEN m.p IS NULL THEN NULL ELSE m.i END, m.c,
            m.c + m.t, m.t, m.n, m.e, true, m.s, m.a,
            coalesce(m.g, CASE WHEN v_grouping IS NOT NULL THEN '' END), m.l, m.body
        FROM ROWS FROM (
            json_to_recordset(p_messages) AS (
                i bigint, p bigint, t int, c float8, n int, s text, e smallint, a text, g text,
                l text),
            unnest(p_bodies)) AS m(i, p, t, c, n, s, e, a, g, l, body)
        ON CONFLICT DO NOTHING;
        GET DIAGNOSTICS v_count = ROW_COUNT;
        INSERT INTO {schema}.changes (spool, total, held) VALUES (v_spool, v_count, 0);
        IF v_grouping IS NOT NULL THEN
            -- Claims may have come by their places already.
            INSERT INTO {schema}.group_changes (spool, name)
                SELECT DISTINCT v_spool, coalesce(m.g, '')
                FROM json_to_recordset(p_messages) AS m(g text);
        END IF;
    END IF;
    RETURN QUERY SELECT NULL::json, NULL::bytea;
END $$;

-- Deletes some of the messages up to a position that are not claimed, delayed ones first; facts:
-- whether there may be more.
CREATE FUNCTION {schema}.purge_{v}(
    p_project text, p_queue text, p_now float8, p_last bigint, p_limit int)
RETURNS TABLE (facts json, document bytea)
LANGUAGE plpgsql {settings} AS $$
DECLARE
    v_spool bigint := {schema}.spool_{v}(p_project, p_queue);
    v_begin bigint := {schema}.floor_{v}('p', v_spool);
    v_more bool := false;
    v_late int;
    v_count int := 0;
    v_step int;
BEGIN
    v_more := {schema}.end_claims_{v}(p_now, {schema}.time_floor_{v}('d'), v_spool, 50);
    DELETE FROM {schema}.delayed d WHERE d.number = ANY (ARRAY(
        SELECT e.number FROM {schema}.delayed e WHERE e.spool = v_spool AND e.number + 0 <= p_last
            AND e.number + 0 > {schema}.floor_{v}('n', v_spool)
        ORDER BY e.number + 0 LIMIT p_limit FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS v_late = ROW_COUNT;
    DELETE FROM {schema}.messages m WHERE m.spool = v_spool AND m.position = ANY (ARRAY(
        SELECT f.position FROM {schema}.messages f WHERE f.spool + 0 = v_spool AND f.claim IS NULL
            AND NOT f.returned AND f.position <= p_last AND f.position > v_begin
        ORDER BY f.position LIMIT p_limit FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS v_step = ROW_COUNT;
    v_count := v_step;
    DELETE FROM {schema}.messages m WHERE m.spool = v_spool AND m.position = ANY (ARRAY(
        SELECT f.position FROM {schema}.messages f WHERE f.spool + 0 = v_spool AND f.claim IS NULL
            AND f.returned AND f.position <= p_last AND f.position > v_begin
        ORDER BY f.position LIMIT p_limit FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS v_step = ROW_COUNT;
    v_count := v_count + v_step;
    -- What waits for a retry is not claimed.
    DELETE FROM {schema}.messages m WHERE m.spool = v_spool AND m.retry_at IS NOT NULL
        AND m.position = ANY (ARRAY(
            SELECT f.position FROM {schema}.claims c CROSS JOIN LATERAL (
                SELECT h.position FROM {schema}.messages h
                WHERE h.claim = c.token AND h.position <= p_last OFFSET 0) f
            WHERE c.spool + 0 = v_spool AND coalesce(c.waits, false) LIMIT p_limit));
    GET DIAGNOSTICS v_step = ROW_COUNT;
    v_count := v_count + v_step;
    IF v_late + v_count > 0 THEN
        INSERT INTO {schema}.changes (spool, total, held) VALUES (v_spool, -v_late - v_count, 0);
    END IF;
    RETURN QUERY SELECT to_json(v_more OR v_late + v_count > 0), NULL::bytea;
END $$;

-- The position of the last visible message of a queue.
CREATE FUNCTION {schema}.last_{v}(p_spool bigint, p_now float8) RETURNS bigint
LANGUAGE plpgsql STABLE {settings} AS $$
DECLARE
    v_begin bigint := {schema}.floor_{v}('p', p_spool);
BEGIN
    RETURN (SELECT m.position FROM {schema}.messages m
        WHERE m.spool = p_spool AND m.position > v_begin AND m.expires - p_now > 0
        ORDER BY m.position DESC LIMIT 1);
END $$;

-- facts: the position of the last visible message and the name of its epoch, or null.
CREATE FUNCTION {schema}.end_{v}(p_project text, p_queue text, p_now float8)
RETURNS TABLE (facts json, document bytea)
LANGUAGE plpgsql STABLE {settings} AS $$
DECLARE
    v_last bigint := {schema}.last_{v}({schema}.spool_{v}(p_project, p_queue), p_now);
BEGIN
    IF v_last IS NOT NULL THEN
        RETURN QUERY SELECT json_build_array(v_last, (SELECT e.name FROM {schema}.epochs e
            WHERE e.first <= v_last ORDER BY e.first DESC LIMIT 1)), NULL::bytea;
    END IF;
END $$;

-- facts: the ids of the oldest and the newest message, delayed ones included, and when they were
-- created; nulls without any. Then how many there are, and how many are claimed.
CREATE FUNCTION {schema}.stats_{v}(p_project text, p_queue text, p_now float8, p_counts bool)
RETURNS TABLE (facts json, document bytea)
LANGUAGE plpgsql STABLE {settings} AS $$
DECLARE
    v_spool bigint := {schema}.spool_{v}(p_project, p_queue);
    v_begin bigint := {schema}.floor_{v}('p', v_spool);
    v_delayed bigint := {schema}.floor_{v}('n', v_spool);
    v_folded xid8;
    v_expired float8;
    v_ended float8;
    v_edges json;
    v_total bigint;
    v_held bigint;
BEGIN
    SELECT json_agg(json_build_array(f.number, f.created) ORDER BY f.position) INTO v_edges FROM (
        (SELECT e.position, e.number, e.created FROM (
            (SELECT m.position, coalesce(m.number, m.position) AS number, m.created
            FROM {schema}.messages m
            WHERE m.spool = v_spool AND m.position > v_begin AND m.expires - p_now > 0
            ORDER BY m.position LIMIT 1)
            UNION ALL
            (SELECT d.number, d.number, d.created FROM {schema}.delayed d
            WHERE NOT p_counts AND d.spool = v_spool AND d.number + 0 > v_delayed
                AND d.expires - p_now > 0
            ORDER BY d.number + 0 LIMIT 1)) e
        ORDER BY 1 LIMIT 1)
        UNION ALL
        (SELECT e.position, e.number, e.created FROM (
            (SELECT m.position, coalesce(m.number, m.position) AS number, m.created
            FROM {schema}.messages m
            WHERE m.spool = v_spool AND m.position > v_begin AND m.expires - p_now > 0
            ORDER BY m.position DESC LIMIT 1)
            UNION ALL
            (SELECT d.number, d.number, d.created FROM {schema}.delayed d
            WHERE NOT p_counts AND d.spool = v_spool AND d.number + 0 > v_delayed
                AND d.expires - p_now > 0
            ORDER BY d.number + 0 DESC LIMIT 1)) e
        ORDER BY 1 DESC LIMIT 1)) f;
    IF p_counts THEN
        SELECT {schema}.floor_{v}('c', 0)::text::xid8, {schema}.time_floor_{v}('e'),
            {schema}.time_floor_{v}('d') INTO v_folded, v_expired, v_ended;
        SELECT coalesce(sum(t.total), 0), coalesce(sum(t.held), 0) INTO v_total, v_held FROM (
            SELECT a.total, a.held FROM {schema}.tallies a WHERE a.spool = v_spool
            UNION ALL
            SELECT c.total, c.held FROM {schema}.changes c WHERE c.spool = v_spool AND c.xid >= v_folded) t;
        -- What has ended is removed, or freed, within seconds.
        v_total := v_total - (SELECT count(*) FROM {schema}.messages m
            WHERE m.expires <= p_now AND m.expires > v_expired AND m.spool + 0 = v_spool);
        v_total := v_total - (SELECT count(*) FROM {schema}.delayed d
            WHERE d.expires <= p_now AND d.expires > v_expired AND abs(d.spool) = v_spool);
        v_held := v_held - (SELECT coalesce(sum((SELECT count(*) FROM {schema}.messages m
                WHERE m.claim = c.token)), 0)
            FROM {schema}.claims c WHERE c.spool + 0 = v_spool AND c.expires + 0 <= p_now
                AND c.expires + 0 > v_ended
                AND c.waits IS NOT TRUE);
    END IF;
    RETURN QUERY SELECT json_build_array(v_edges, v_total, v_held), NULL::bytea;
END $$;

-- facts: how many messages all queues have, and how many are claimed.
CREATE FUNCTION {schema}.volume_{v}(p_now float8) RETURNS TABLE (facts json, document bytea)
LANGUAGE plpgsql STABLE {settings} AS $$
DECLARE
    v_folded xid8 := {schema}.floor_{v}('c', 0)::text::xid8;
    v_expired float8 := {schema}.time_floor_{v}('e');
    v_ended float8 := {schema}.time_floor_{v}('d');
    v_total bigint;
    v_held bigint;
BEGIN
    SELECT coalesce(sum(t.total), 0), coalesce(sum(t.held), 0) INTO v_total, v_held FROM (
        SELECT a.total, a.held FROM {schema}.tallies a
        UNION ALL SELECT c.total, c.held FROM {schema}.changes c
        WHERE c.xid >= v_folded) t;
    v_total := v_total - (SELECT count(*) FROM {schema}.messages m
        WHERE m.expires <= p_now AND m.expires > v_expired);
    v_total := v_total - (SELECT count(*) FROM {schema}.delayed d
        WHERE d.expires <= p_now AND d.expires > v_expired);
    v_held := v_held - (SELECT coalesce(sum((SELECT count(*) FROM {schema}.messages m
            WHERE m.claim = c.token)), 0) FROM {schema}.claims c
        WHERE c.expires <= p_now AND c.expires > v_ended AND c.waits IS NULL);
    RETURN QUERY SELECT json_build_array(v_total, v_held), NULL::bytea;
END $$;

-- facts: which of the queues, each [project, name], may have a message to claim; from 0 on.
CREATE FUNCTION {schema}.find_claimable_{v}(p_now float8, p_names json)
RETURNS TABLE (facts json, document bytea)
LANGUAGE plpgsql STABLE {settings} AS $$
DECLARE
    v_ended float8 := {schema}.time_floor_{v}('d');
BEGIN
    RETURN QUERY SELECT coalesce(json_agg(n.number - 1), '[]'), NULL::bytea FROM (
        SELECT j.number, s.id AS spool, s.grouping, {schema}.floor_{v}('p', s.id) AS first
        FROM json_array_elements(p_names) WITH ORDINALITY AS j(name, number)
        CROSS JOIN LATERAL (SELECT t.id, t.grouping FROM {schema}.spools t
            WHERE t.project = j.name ->> 0 AND t.name = j.name ->> 1 OFFSET 0) s OFFSET 0) n
    WHERE (n.grouping IS NULL AND (
            EXISTS (SELECT 1 FROM {schema}.messages m WHERE m.spool + 0 = n.spool
                AND m.claim IS NULL AND m.returned AND m.position > n.first
                AND m.expires - p_now > 0)
            OR EXISTS (SELECT 1 FROM {schema}.messages m WHERE m.spool + 0 = n.spool
                AND m.claim IS NULL AND NOT m.returned AND m.position > n.first
                AND m.expires - p_now > 0)))
        OR EXISTS (SELECT 1 FROM {schema}.message_groups g
            WHERE g.grouping + 0 = n.grouping AND g.ready IS NOT NULL)
        OR EXISTS (SELECT 1 FROM {schema}.group_changes g
            WHERE n.grouping IS NOT NULL AND g.spool = n.spool)
        OR EXISTS (SELECT 1 FROM {schema}.messages m WHERE n.grouping IS NOT NULL
            AND m.spool = n.spool AND m.position > (
                SELECT g.reached FROM {schema}.groupings g WHERE g.id = n.grouping))
        OR EXISTS (SELECT 1 FROM {schema}.delayed d WHERE d.spool + 0 = n.spool AND d.due + 0 <= p_now
            AND d.due + 0 > v_ended)
        OR EXISTS (SELECT 1 FROM {schema}.claims c WHERE c.spool + 0 = n.spool AND c.expires + 0 <= p_now
            AND c.expires + 0 > v_ended);
END $$;

-- Deletes a queue or topic; its messages go with it unless there is one of the other kind by its
-- name. Without a kind, only what is there of messages.
CREATE FUNCTION {schema}.delete_queue_{v}(p_project text, p_kind text, p_queue text)
RETURNS TABLE (facts json, document bytea)
LANGUAGE plpgsql {settings} AS $$
DECLARE
    v_spool bigint;
BEGIN
    PERFORM {schema}.lock_{v}(p_project, p_queue);
    PERFORM {schema}.spool_{v}(p_project, p_queue);
    DELETE FROM {schema}.queues q
        WHERE q.project = p_project AND q.kind = p_kind AND q.name = p_queue;
    IF p_kind IS NULL OR NOT EXISTS (SELECT 1 FROM {schema}.queues q
            WHERE q.project = p_project AND q.kind IN ('queue', 'topic') AND q.name = p_queue) THEN
        DELETE FROM {schema}.spools s WHERE s.project = p_project AND s.name = p_queue
            RETURNING s.id INTO v_spool;
        IF FOUND THEN
            INSERT INTO {schema}.doomed_spools (id) VALUES (v_spool);
        END IF;
    END IF;
    RETURN QUERY SELECT NULL::json, NULL::bytea;
END $$;

-- Removes a step of what has expired or is left of deleted queues, and adds `changes` to `tallies`.
-- One server at a time does this. p_again: look below the floors, too, for what servers have added there
-- whose clocks are behind.
--
-- facts: whether there may be more, and of each queue that had expired messages [project, name, how
-- many]; null where another server does it.
CREATE FUNCTION {schema}.collect_{v}(p_now float8, p_limit int, p_again bool)
RETURNS TABLE (facts json, document bytea)
LANGUAGE plpgsql {settings} AS $$
DECLARE
    v_folded bigint;
    v_over bigint;
    -- What has been added meanwhile by a server whose clock is ahead must not be passed over.
    v_until float8 := least(p_now, extract(epoch FROM clock_timestamp())) - 1;
    v_expired float8 := 0;
    v_ended float8 := 0;
    v_removed json;
    v_last bigint;
    v_has_more bool;
    v_count int;
    v_doomed bigint;
    v_left bigint;
    v_positions bigint[];
BEGIN
    IF NOT pg_try_advisory_xact_lock({lock}, 0) THEN
        RETURN;
    END IF;
    v_folded := {schema}.floor_{v}('c', 0);
    v_over := pg_snapshot_xmin(pg_current_snapshot())::text::bigint;
    IF NOT p_again THEN
        SELECT {schema}.time_floor_{v}('e'), {schema}.time_floor_{v}('d')
            INTO v_expired, v_ended;
    END IF;
    v_has_more := {schema}.end_claims_{v}(p_now, v_ended, NULL, 50);
    WITH gone AS (
        DELETE FROM {schema}.messages m WHERE m.ctid = ANY (ARRAY(
            SELECT e.ctid FROM {schema}.messages e
            WHERE e.expires <= p_now AND e.expires > v_expired
            ORDER BY e.expires LIMIT p_limit FOR UPDATE SKIP LOCKED))
        RETURNING m.spool, m.claim, m.retry_at),
    counted AS (
        INSERT INTO {schema}.changes (spool, total, held)
            SELECT g.spool, -count(*), -count(g.claim) FILTER (WHERE g.retry_at IS NULL)
            FROM gone g GROUP BY g.spool RETURNING spool, total)
    SELECT (SELECT count(*) FROM gone), (SELECT json_agg(f.told) FROM (
            SELECT (SELECT json_build_array(s.project, s.name, -c.total) FROM {schema}.spools s
                WHERE s.id = c.spool)::text::json AS told FROM counted c) f
            WHERE f.told IS NOT NULL)
        INTO v_count, v_removed;
    v_has_more := v_has_more OR v_count = p_limit;
    WITH gone AS (
        DELETE FROM {schema}.delayed m WHERE m.ctid = ANY (ARRAY(
            SELECT e.ctid FROM {schema}.delayed e
            WHERE e.expires <= p_now AND e.expires > v_expired
            ORDER BY e.expires LIMIT p_limit FOR UPDATE SKIP LOCKED))
        RETURNING m.spool),
    counted AS (
        INSERT INTO {schema}.changes (spool, total, held)
            SELECT g.spool, -count(*), 0 FROM gone g GROUP BY g.spool)
    SELECT count(*) INTO v_count FROM gone;
    v_has_more := v_has_more OR v_count = p_limit;
    DELETE FROM {schema}.subscriptions u WHERE u.id = ANY (ARRAY(
        SELECT e.id FROM {schema}.subscriptions e
        WHERE e.expires <= p_now AND e.expires > v_expired
        ORDER BY e.expires LIMIT p_limit FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS v_count = ROW_COUNT;
    v_has_more := v_has_more OR v_count = p_limit;
    DELETE FROM {schema}.receipts r WHERE r.ctid = ANY (ARRAY(
        SELECT e.ctid FROM {schema}.receipts e
        WHERE e.expires <= p_now AND e.expires > v_expired
        ORDER BY e.expires LIMIT p_limit FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS v_count = ROW_COUNT;
    v_has_more := v_has_more OR v_count = p_limit;
    SELECT d.id INTO v_doomed FROM {schema}.doomed_spools d ORDER BY d.id LIMIT 1;
    IF v_doomed IS NOT NULL THEN
        v_has_more := true;
        -- First what is due, in whose way others would be.
        DELETE FROM {schema}.delayed d WHERE d.number = ANY (ARRAY(
            SELECT e.number FROM {schema}.delayed e WHERE e.spool = v_doomed LIMIT p_limit));
        GET DIAGNOSTICS v_count = ROW_COUNT;
        IF v_count = 0 THEN
            DELETE FROM {schema}.claims c WHERE c.token = ANY (ARRAY(
                SELECT e.token FROM {schema}.claims e WHERE e.spool + 0 = v_doomed LIMIT p_limit));
            GET DIAGNOSTICS v_count = ROW_COUNT;
        END IF;
        IF v_count = 0 THEN
            v_positions := ARRAY(SELECT m.position FROM {schema}.messages m
                WHERE m.spool = v_doomed AND m.position > {schema}.floor_{v}('p', v_doomed)
                ORDER BY m.position LIMIT p_limit);
            DELETE FROM {schema}.messages m
                WHERE m.spool = v_doomed AND m.position = ANY (v_positions);
            v_count := cardinality(v_positions);
            IF v_count > 0 THEN
                PERFORM {schema}.raise_floor_{v}('p', v_doomed, {schema}.floor_{v}('p', v_doomed),
                    v_positions[v_count], false);
            END IF;
        END IF;
        IF v_count = 0 THEN
            DELETE FROM {schema}.receipts r WHERE r.ctid = ANY (ARRAY(
                SELECT e.ctid FROM {schema}.receipts e WHERE e.spool = v_doomed LIMIT p_limit));
            GET DIAGNOSTICS v_count = ROW_COUNT;
        END IF;
        IF v_count = 0 THEN
            DELETE FROM {schema}.group_changes g WHERE g.ctid = ANY (ARRAY(
                SELECT e.ctid FROM {schema}.group_changes e WHERE e.spool = v_doomed LIMIT p_limit));
            GET DIAGNOSTICS v_count = ROW_COUNT;
        END IF;
        IF v_count = 0 THEN
            UPDATE {schema}.groupings g SET spool = NULL WHERE g.spool = v_doomed;
            DELETE FROM {schema}.tallies t WHERE t.spool = v_doomed;
            DELETE FROM {schema}.changes c WHERE c.spool = v_doomed;
            DELETE FROM {schema}.floors f WHERE f.kind IN ('p', 'n') AND f.spool = v_doomed;
            DELETE FROM {schema}.doomed_spools d WHERE d.id = v_doomed;
        END IF;
    END IF;
    SELECT g.id INTO v_left FROM {schema}.groupings g WHERE g.spool IS NULL ORDER BY g.id LIMIT 1;
    IF v_left IS NOT NULL THEN
        v_has_more := true;
        DELETE FROM {schema}.message_groups g WHERE g.grouping = v_left AND g.name = ANY (ARRAY(
            SELECT e.name FROM {schema}.message_groups e WHERE e.grouping = v_left
            ORDER BY e.name LIMIT p_limit));
        IF NOT FOUND THEN
            DELETE FROM {schema}.groupings g WHERE g.id = v_left;
        END IF;
    END IF;
    IF p_again OR v_folded > v_over THEN
        -- Numbers of transactions begin anew in a database that has been restored from a dump.
        v_folded := 0;
    END IF;
    WITH gone AS (
        DELETE FROM {schema}.changes c WHERE c.ctid = ANY (ARRAY(
            SELECT e.ctid FROM {schema}.changes e WHERE e.xid >= v_folded::text::xid8
            ORDER BY e.xid LIMIT 20 * p_limit))
        RETURNING c.spool, c.total, c.held, c.xid),
    added AS (
        INSERT INTO {schema}.tallies AS t (spool, total, held)
            SELECT g.spool, sum(g.total), sum(g.held) FROM gone g GROUP BY g.spool
        ON CONFLICT (spool) DO UPDATE
            SET total = t.total + excluded.total, held = t.held + excluded.held)
    SELECT count(*), max(g.xid::text::bigint) INTO v_count, v_last FROM gone g;
    v_has_more := v_has_more OR v_count = 20 * p_limit;
    v_has_more := {schema}.gather_usage_{v}(20 * p_limit, v_over, p_again) OR v_has_more;
    -- PERF: nothing is written where nothing has happened.
    IF v_count > 0 OR v_has_more OR p_again THEN
        -- Transactions before `v_over` were over when this began.
        PERFORM {schema}.raise_floor_{v}('c', 0, v_folded,
            CASE WHEN v_count = 20 * p_limit THEN least(v_over, v_last) ELSE v_over END, p_again);
        PERFORM {schema}.raise_floor_{v}('e', 0, round(v_expired * 1e6)::bigint, floor(1e6 * least(
            v_until,
            (SELECT m.expires FROM {schema}.messages m WHERE m.expires > v_expired
                ORDER BY m.expires LIMIT 1),
            (SELECT d.expires FROM {schema}.delayed d WHERE d.expires > v_expired
                ORDER BY d.expires LIMIT 1),
            (SELECT r.expires FROM {schema}.receipts r WHERE r.expires > v_expired
                ORDER BY r.expires LIMIT 1),
            (SELECT u.expires FROM {schema}.subscriptions u WHERE u.expires > v_expired
                ORDER BY u.expires LIMIT 1)))::bigint - 1, p_again);
        PERFORM {schema}.raise_floor_{v}('d', 0, round(v_ended * 1e6)::bigint, floor(1e6 * least(
            v_until,
            (SELECT d.due FROM {schema}.delayed d WHERE d.due > v_ended ORDER BY d.due LIMIT 1),
            (SELECT c.expires FROM {schema}.claims c WHERE c.expires > v_ended AND c.waits IS NULL
                ORDER BY c.expires LIMIT 1),
            (SELECT c.expires FROM {schema}.claims c
                WHERE c.expires > v_ended AND c.waits IS NOT NULL
                ORDER BY c.expires LIMIT 1)))::bigint - 1, p_again);
    END IF;
    RETURN QUERY SELECT json_build_array(v_has_more, coalesce(v_removed, '[]')), NULL::bytea;
END $$;

-- What is told of a redrive.
CREATE FUNCTION {schema}.redrive_{v}(p_id bigint) RETURNS json
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (SELECT json_build_array(r.id, r.target, r.moved, r.remaining, r.rate, r.state, r.reason,
            r.passed_over, r.created, r.updated)
        FROM {schema}.redrives r WHERE r.id = p_id);
END $$;

-- Begins a redrive. p_kept: how many of the queue are remembered. facts: it, or 'queue' or 'project',
-- which has as many as may run.
CREATE FUNCTION {schema}.redrive_create_{v}(
    p_project text, p_queue text, p_now float8, p_target text, p_limit bigint, p_rate float8,
    p_most_of_queue int, p_most_of_project int, p_kept int)
RETURNS TABLE (facts json, document bytea)
LANGUAGE plpgsql {settings} AS $$
DECLARE
    v_id bigint;
BEGIN
    -- No queue has this name.
    PERFORM {schema}.lock_{v}(p_project, '');
    IF p_most_of_queue <= (SELECT count(*) FROM {schema}.redrives r
            WHERE r.project = p_project AND r.queue = p_queue AND r.next_at IS NOT NULL) THEN
        RETURN QUERY SELECT '"queue"'::json, NULL::bytea;
        RETURN;
    ELSIF p_most_of_project <= (SELECT count(*) FROM {schema}.redrives r
            WHERE r.project = p_project AND r.next_at IS NOT NULL) THEN
        RETURN QUERY SELECT '"project"'::json, NULL::bytea;
        RETURN;
    END IF;
    DELETE FROM {schema}.redrives d WHERE d.next_at IS NULL AND d.id = ANY (ARRAY(
        SELECT r.id FROM {schema}.redrives r WHERE r.project = p_project AND r.queue = p_queue
        ORDER BY r.id DESC OFFSET p_kept - 1));
    INSERT INTO {schema}.redrives
            (project, queue, spool, target, last, remaining, rate, state, created, updated, next_at)
        SELECT p_project, p_queue, {schema}.spool_{v}(p_project, p_queue), p_target,
            b.last_value * 65536 + 65535, p_limit, p_rate, 'running', p_now, p_now, p_now
        FROM {schema}.batches b
        RETURNING id INTO v_id;
    RETURN QUERY SELECT {schema}.redrive_{v}(v_id), NULL::bytea;
END $$;

-- facts: redrives of a queue, oldest first: the one of a number, or those after another.
CREATE FUNCTION {schema}.redrive_list_{v}(
    p_project text, p_queue text, p_id bigint, p_after bigint, p_limit int)
RETURNS TABLE (facts json, document bytea)
LANGUAGE plpgsql STABLE {settings} AS $$
BEGIN
    RETURN QUERY SELECT coalesce(json_agg({schema}.redrive_{v}(f.id) ORDER BY f.id), '[]'), NULL::bytea
        FROM (SELECT r.id FROM {schema}.redrives r
            WHERE r.project = p_project AND r.queue = p_queue AND r.id > p_after
                AND (p_id IS NULL OR r.id = p_id)
            ORDER BY r.id LIMIT p_limit) f;
END $$;

-- Ends a redrive, if it runs; facts: whether there is such a redrive.
CREATE FUNCTION {schema}.redrive_end_{v}(
    p_project text, p_queue text, p_id bigint, p_state text, p_reason text, p_now float8)
RETURNS TABLE (facts json, document bytea)
LANGUAGE plpgsql {settings} AS $$
BEGIN
    UPDATE {schema}.redrives r
        SET state = p_state, reason = p_reason, updated = p_now, next_at = NULL
        WHERE r.id = p_id AND r.project = p_project AND r.queue = p_queue AND r.next_at IS NOT NULL;
    RETURN QUERY SELECT to_json(EXISTS (SELECT 1 FROM {schema}.redrives r
        WHERE r.id = p_id AND r.project = p_project AND r.queue = p_queue)), NULL::bytea;
END $$;

-- facts: when the first step of all is due, or null; and the redrives whose next step is, each
-- [project, queue, id].
CREATE FUNCTION {schema}.redrive_due_{v}(p_now float8, p_limit int)
RETURNS TABLE (facts json, document bytea)
LANGUAGE plpgsql STABLE {settings} AS $$
BEGIN
    RETURN QUERY SELECT json_build_array(
        (SELECT r.next_at FROM {schema}.redrives r WHERE r.next_at IS NOT NULL
            ORDER BY r.next_at LIMIT 1),
        (SELECT coalesce(json_agg(json_build_array(f.project, f.queue, f.id)), '[]') FROM (
            SELECT r.project, r.queue, r.id FROM {schema}.redrives r
            WHERE r.next_at <= p_now AND r.next_at IS NOT NULL
            ORDER BY r.next_at LIMIT p_limit) f)), NULL::bytea;
END $$;

-- Forgets redrives that were over at `p_before`.
CREATE FUNCTION {schema}.redrive_forget_{v}(p_before float8)
RETURNS TABLE (facts json, document bytea)
LANGUAGE plpgsql {settings} AS $$
BEGIN
    DELETE FROM {schema}.redrives r WHERE r.next_at IS NULL AND r.updated <= p_before;
    RETURN QUERY SELECT NULL::json, NULL::bytea;
END $$;

-- Moves some messages of a redrive to those of the queues `p_targets` that they are for, if it is time
-- and no other server does it. What is claimed or waits for a retry stays where it is. p_most, p_bytes:
-- messages and bytes after which the step ends. p_gone: the reason for one whose queue was deleted.
--
-- Of each queue that messages were moved to there is a row, with its name as facts and, where it has
-- subscriptions, the messages. The facts of the last row: how many were moved, and the queue that the
-- next one is for if it is none of those.
CREATE FUNCTION {schema}.redrive_step_{v}(
    p_project text, p_queue text, p_id bigint, p_now float8, p_targets json, p_most int, p_bytes int,
    p_gone text)
RETURNS TABLE (facts json, document bytea)
LANGUAGE plpgsql {settings} AS $$
DECLARE
    v_redrive {schema}.redrives;
    v_spool bigint;
    v_found bigint[];
    v_locked bigint[];
    v_positions bigint[] := '{}';
    v_names text[] := '{}';
    v_wanted text;
    v_after bigint;
    v_most int;
    v_moved int := 0;
    v_left int := 0;
    v_size bigint := 0;
    v_target bigint;
    v_base bigint;
    v_count int;
    v_is_over bool;
    r record;
BEGIN
    SELECT d.* INTO v_redrive FROM {schema}.redrives d
        WHERE d.id = p_id AND d.project = p_project AND d.queue = p_queue AND d.next_at <= p_now
        FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN QUERY SELECT json_build_array(0, NULL), NULL::bytea;
        RETURN;
    END IF;
    v_spool := {schema}.spool_{v}(p_project, p_queue);
    v_after := v_redrive.after;
    v_most := least(p_most, v_redrive.remaining, greatest(1, floor(v_redrive.rate)));
    IF v_redrive.spool IS NOT NULL AND v_redrive.spool IS DISTINCT FROM v_spool THEN
        UPDATE {schema}.redrives d
            SET state = 'stopped', reason = p_gone, updated = p_now, next_at = NULL
            WHERE d.id = p_id;
        RETURN QUERY SELECT json_build_array(0, NULL), NULL::bytea;
        RETURN;
    END IF;
    PERFORM {schema}.end_claims_{v}(p_now, {schema}.time_floor_{v}('d'), v_spool, 50);
    v_found := ARRAY(SELECT f.position FROM (
        (SELECT m.position FROM {schema}.messages m
            WHERE m.spool + 0 = v_redrive.spool AND m.claim IS NULL AND NOT m.returned
                AND m.position > v_after AND m.position <= v_redrive.last AND m.expires - p_now > 0
            ORDER BY m.position LIMIT v_most)
        UNION ALL
        (SELECT m.position FROM {schema}.messages m
            WHERE m.spool + 0 = v_redrive.spool AND m.claim IS NULL AND m.returned
                AND m.position > v_after AND m.position <= v_redrive.last AND m.expires - p_now > 0
            ORDER BY m.position LIMIT v_most)) f
        ORDER BY f.position LIMIT v_most);
    -- Waited for: what somebody looks at only must not be passed over.
    v_locked := ARRAY(SELECT m.position FROM {schema}.messages m
        WHERE m.spool = v_spool AND m.position = ANY (v_found) AND m.claim IS NULL
        ORDER BY m.position FOR UPDATE);
    FOR r IN
        SELECT f.position, octet_length(m.body) AS size, m.position IS NOT NULL AS is_free,
            coalesce(v_redrive.target, m.dead_letter::json ->> 'queue') AS target
        FROM unnest(v_found) AS f(position) LEFT JOIN LATERAL (
            SELECT * FROM {schema}.messages c WHERE c.spool = v_spool AND c.position = f.position
                AND c.position = ANY (v_locked) OFFSET 0) m ON true
        ORDER BY f.position
    LOOP
        IF r.is_free AND (r.target IS NULL OR r.target = p_queue) THEN
            v_left := v_left + 1;
        ELSIF r.is_free THEN
            IF NOT EXISTS (SELECT 1 FROM json_array_elements_text(p_targets) AS t(name)
                    WHERE t.name = r.target) THEN
                v_wanted := r.target;
                EXIT;
            END IF;
            v_positions := v_positions || r.position;
            v_names := v_names || r.target;
            v_size := v_size + r.size;
        END IF;
        v_after := r.position;
        EXIT WHEN v_size >= p_bytes;
    END LOOP;
    IF v_wanted IS NOT NULL AND v_after = v_redrive.after THEN
        RETURN QUERY SELECT json_build_array(0, v_wanted), NULL::bytea;
        RETURN;
    END IF;
    v_moved := cardinality(v_positions);
    IF v_moved > 0 THEN
        PERFORM pg_advisory_xact_lock({lock}, name.key) FROM (
            SELECT DISTINCT hashtext(p_project || '/' || n.name) AS key
            FROM unnest(v_names) AS n(name) ORDER BY 1) name;
        v_base := {schema}.next_base_{v}() + 1;
    END IF;
    FOR r IN SELECT n.name, array_agg(n.position) AS positions
            FROM unnest(v_names, v_positions) AS n(name, position) GROUP BY n.name LOOP
        v_target := coalesce({schema}.spool_{v}(p_project, r.name),
            {schema}.make_spool_{v}(p_project, r.name));
        WITH gone AS (
            DELETE FROM {schema}.messages m
            WHERE m.spool = v_spool AND m.position = ANY (r.positions) RETURNING m.*)
        INSERT INTO {schema}.messages
            (spool, position, created, expires, client, ttl, encoding, checksum, attributes,
            message_group, body)
        SELECT v_target, v_base - 1 + row_number() OVER (ORDER BY g.position), p_now,
            p_now + coalesce((g.dead_letter::json ->> 'ttl')::int, g.ttl), g.client,
            coalesce((g.dead_letter::json ->> 'ttl')::int, g.ttl), g.encoding, g.checksum,
            g.attributes, nullif(g.message_group, ''), g.body
        FROM gone g;
        GET DIAGNOSTICS v_count = ROW_COUNT;
        INSERT INTO {schema}.changes (spool, total, held)
            VALUES (v_spool, -v_count, 0), (v_target, v_count, 0);
        IF EXISTS (SELECT 1 FROM {schema}.subscriptions s WHERE s.project = p_project
                AND s.source = r.name AND s.expires - p_now > 0) THEN
            RETURN QUERY SELECT to_json(r.name),
                    {schema}.page_{v}(string_agg(f.head, ','), string_agg(f.body, '')) FROM (
                SELECT m.body, {schema}.head_{v}(
                    m.number, m.position, p_now, m.created, m.ttl, 0, NULL, m.checksum, m.encoding,
                    octet_length(m.body), m.attributes, m.message_group, NULL) AS head
                FROM {schema}.messages m WHERE m.spool = v_target
                    AND m.position >= v_base AND m.position < v_base + v_count
                ORDER BY m.position) f;
        ELSE
            RETURN QUERY SELECT to_json(r.name), E'[]\n'::bytea;
        END IF;
        v_base := v_base + v_count;
    END LOOP;
    v_is_over := v_wanted IS NULL
        AND (cardinality(v_found) = 0 OR v_moved = coalesce(v_redrive.remaining, -1));
    UPDATE {schema}.redrives d SET
            moved = d.moved + v_moved, passed_over = d.passed_over + v_left,
            remaining = d.remaining - v_moved, after = v_after, updated = p_now,
            next_at = CASE WHEN v_is_over THEN NULL
                ELSE p_now + coalesce(v_moved / v_redrive.rate, 0) END,
            state = CASE WHEN v_is_over THEN 'finished' ELSE 'running' END
        WHERE d.id = p_id;
    RETURN QUERY SELECT json_build_array(v_moved, v_wanted), NULL::bytea;
END $$;

-- Has bytes not counted any more.
CREATE FUNCTION {schema}.end_usage_{v}() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE {schema}.counts_bytes SET is_on = false;
    ALTER TABLE {schema}.messages DISABLE TRIGGER count_new, DISABLE TRIGGER count_gone;
    ALTER TABLE {schema}.delayed DISABLE TRIGGER count_new, DISABLE TRIGGER count_gone;
END $$;

-- Adds `usage_changes` to `usage`; whether there may be more. p_over: transactions before this one are
-- over. p_again: look below the floor, too.
CREATE FUNCTION {schema}.gather_usage_{v}(p_most int, p_over bigint, p_again bool) RETURNS bool
LANGUAGE plpgsql {settings} AS $$
DECLARE
    v_gathered bigint := {schema}.floor_{v}('u', 0);
    v_last bigint;
    v_count int;
    v_projects text[];
BEGIN
    IF p_again OR v_gathered > p_over THEN
        -- Numbers of transactions begin anew in a database that has been restored from a dump.
        v_gathered := 0;
    END IF;
    WITH gone AS (
        DELETE FROM {schema}.usage_changes c WHERE c.ctid = ANY (ARRAY(
            SELECT e.ctid FROM {schema}.usage_changes e WHERE e.xid >= v_gathered::text::xid8
            ORDER BY e.xid LIMIT p_most))
        RETURNING c.project, c.queues, c.subscriptions, c.bytes, c.xid),
    added AS (
        INSERT INTO {schema}.usage AS u (project, queues, subscriptions, bytes)
            SELECT g.project, sum(g.queues), sum(g.subscriptions), sum(g.bytes)
            FROM gone g GROUP BY g.project
        ON CONFLICT (project) DO UPDATE SET queues = u.queues + excluded.queues,
            subscriptions = u.subscriptions + excluded.subscriptions,
            bytes = u.bytes + excluded.bytes
        RETURNING u.project)
    SELECT count(*), max(g.xid::text::bigint), (SELECT array_agg(a.project) FROM added a)
        INTO v_count, v_last, v_projects FROM gone g;
    IF v_count > 0 OR p_again THEN
        DELETE FROM {schema}.usage u WHERE u.project = ANY (v_projects)
            AND u.queues = 0 AND u.subscriptions = 0 AND u.bytes = 0;
        PERFORM {schema}.raise_floor_{v}('u', 0, v_gathered,
            CASE WHEN v_count = p_most THEN least(p_over, v_last) ELSE p_over END, p_again);
    END IF;
    RETURN v_count = p_most;
END $$;

-- facts: the queues and the subscriptions of a project, and the bytes of its messages.
CREATE FUNCTION {schema}.usage_{v}(p_project text) RETURNS TABLE (facts json, document bytea)
LANGUAGE plpgsql STABLE {settings} AS $$
DECLARE
    v_gathered xid8 := {schema}.floor_{v}('u', 0)::text::xid8;
BEGIN
    RETURN QUERY SELECT json_build_array(
            coalesce(sum(f.queues), 0), coalesce(sum(f.subscriptions), 0),
            coalesce(sum(f.bytes), 0)), NULL::bytea
        FROM (
            SELECT u.queues, u.subscriptions, u.bytes FROM {schema}.usage u
            WHERE u.project = p_project
            UNION ALL
            SELECT c.queues, c.subscriptions, c.bytes FROM {schema}.usage_changes c
            WHERE c.project = p_project AND c.xid >= v_gathered) f;
END $$;

-- Has bytes counted from now on, together with those that are there, and says that they are counted for
-- a server. Only the owner of the tables can enable their triggers. Nobody writes messages meanwhile.
CREATE FUNCTION {schema}.begin_usage_{v}() RETURNS TABLE (facts json, document bytea)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_advisory_xact_lock({migration_lock});
    UPDATE {schema}.counts_bytes SET used = now();
    IF NOT (SELECT c.is_on FROM {schema}.counts_bytes c) THEN
        -- Nothing is gathered meanwhile.
        PERFORM pg_advisory_xact_lock({lock}, 0);
        UPDATE {schema}.counts_bytes SET is_on = true;
        ALTER TABLE {schema}.messages ENABLE TRIGGER count_new, ENABLE TRIGGER count_gone;
        ALTER TABLE {schema}.delayed ENABLE TRIGGER count_new, ENABLE TRIGGER count_gone;
        UPDATE {schema}.usage SET bytes = 0;
        UPDATE {schema}.usage_changes SET bytes = 0;
        INSERT INTO {schema}.usage_changes (project, bytes)
            SELECT f.project, sum(f.bytes) FROM (
                SELECT {schema}.project_of(m.spool) AS project, m.bytes FROM (
                    SELECT a.spool,
                        sum(octet_length(a.body) + coalesce(octet_length(a.attributes), 0)) AS bytes
                    FROM (
                        SELECT e.spool, e.body, e.attributes FROM {schema}.messages e
                        UNION ALL
                        SELECT d.spool, d.body, d.attributes FROM {schema}.delayed d) a
                    GROUP BY a.spool) m) f
            WHERE f.project IS NOT NULL GROUP BY f.project;
    END IF;
    RETURN QUERY SELECT NULL::json, NULL::bytea;
END $$;

-- facts: when the next delayed message, or the next retry, is due, or null.
CREATE FUNCTION {schema}.next_due_{v}() RETURNS TABLE (facts json, document bytea)
LANGUAGE plpgsql STABLE {settings} AS $$
DECLARE
    v_ended float8 := {schema}.time_floor_{v}('d');
BEGIN
    RETURN QUERY SELECT to_json(least(
        (SELECT d.due FROM {schema}.delayed d WHERE d.due > v_ended ORDER BY d.due LIMIT 1),
        (SELECT c.expires FROM {schema}.claims c
            WHERE c.waits IS NOT NULL AND c.expires > v_ended ORDER BY c.expires LIMIT 1))), NULL::bytea;
END $$;

-- facts: queues with messages that are due, each [project, name], those that wait longest first.
CREATE FUNCTION {schema}.find_due_{v}(p_now float8, p_limit int)
RETURNS TABLE (facts json, document bytea)
LANGUAGE plpgsql STABLE {settings} AS $$
DECLARE
    v_ended float8 := {schema}.time_floor_{v}('d');
BEGIN
    RETURN QUERY SELECT coalesce(json_agg(f.name), '[]'), NULL::bytea FROM (
        SELECT DISTINCT ON (d.spool) (SELECT json_build_array(s.project, s.name)
            FROM {schema}.spools s WHERE s.id = d.spool AND s.mark IS NULL)::text::json AS name
        FROM (
            (SELECT e.spool FROM {schema}.delayed e WHERE e.due <= p_now AND e.due > v_ended
            ORDER BY e.due LIMIT p_limit)
            UNION ALL
            (SELECT c.spool FROM {schema}.claims c WHERE c.expires <= p_now
                AND c.expires > v_ended AND c.waits IS NOT NULL
            ORDER BY c.expires LIMIT p_limit)) d) f
    WHERE f.name IS NOT NULL;
END $$;

-- facts: the highest number that a message has been given.
CREATE FUNCTION {schema}.last_number_{v}() RETURNS TABLE (facts json, document bytea)
LANGUAGE sql STABLE AS $$
    SELECT to_json(last_value * 65536 + 65535), NULL::bytea FROM {schema}.batches
$$;

-- Whether the database can be written: a transaction that writes nothing, but would have to.
CREATE FUNCTION {schema}.touch_{v}() RETURNS TABLE (facts json, document bytea)
LANGUAGE sql VOLATILE AS $$
    SELECT to_json(pg_current_xact_id()::text), NULL::bytea
$$;

-- Says that these functions are used, and drops those that no server has used for so many seconds. Bytes
-- are not counted any more that no server has needed for as long.
CREATE FUNCTION {schema}.use_functions_{v}(p_seconds float8)
RETURNS TABLE (facts json, document bytea)
LANGUAGE plpgsql AS $$
DECLARE
    v_digest text;
    v_function regprocedure;
BEGIN
    PERFORM pg_advisory_xact_lock({migration_lock});
    IF EXISTS (SELECT 1 FROM {schema}.counts_bytes c
            WHERE c.is_on AND c.used < now() - make_interval(secs => p_seconds)) THEN
        PERFORM {schema}.end_usage_{v}();
    END IF;
    UPDATE {schema}.functions f SET used = now() WHERE f.digest = '{v}';
    FOR v_digest IN SELECT f.digest FROM {schema}.functions f
            WHERE f.digest <> '{v}'
                AND coalesce(f.used, f.created) < now() - make_interval(secs => p_seconds) LOOP
        BEGIN
            FOR v_function IN SELECT p.oid FROM pg_catalog.pg_proc p
                    JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
                    WHERE n.nspname = {schema_name} AND right(p.proname, 9) = '_' || v_digest LOOP
                EXECUTE 'DROP FUNCTION ' || v_function;
            END LOOP;
            DELETE FROM {schema}.functions f WHERE f.digest = v_digest;
        EXCEPTION WHEN insufficient_privilege THEN
            -- They are left to the user who owns them: to its server, or to `db migrate`.
            NULL;
        END;
    END LOOP;
    RETURN QUERY SELECT NULL::json, NULL::bytea;
END $$;
