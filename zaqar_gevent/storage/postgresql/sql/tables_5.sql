-- A function that notes by itself which groups have to be looked at, all with one statement, sets
-- `zaqar_gevent.notes` meanwhile. Nothing is rewritten, and reads go on.

CREATE OR REPLACE TRIGGER held_message_deleted AFTER DELETE ON {schema}.messages FOR EACH ROW
    WHEN (OLD.message_group IS NOT NULL AND OLD.claim IS NOT NULL
        AND current_setting('zaqar_gevent.notes', true) IS DISTINCT FROM 'function')
    EXECUTE FUNCTION {schema}.note_group();
