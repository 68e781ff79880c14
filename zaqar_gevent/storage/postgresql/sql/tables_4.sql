-- Autovacuum neither cuts off the empty end of these tables, for which it locks out everybody else, nor
-- analyzes them: no plan depends on that, and each session would plan its statements anew. Nothing is
-- rewritten. The largest threshold is as good as none.
ALTER TABLE {schema}.messages SET (
    vacuum_truncate = false, autovacuum_analyze_threshold = 2147483647);
ALTER TABLE {schema}.delayed SET (
    vacuum_truncate = false, autovacuum_analyze_threshold = 2147483647);
ALTER TABLE {schema}.claims SET (
    vacuum_truncate = false, autovacuum_analyze_threshold = 2147483647);
ALTER TABLE {schema}.changes SET (
    vacuum_truncate = false, autovacuum_analyze_threshold = 2147483647);
ALTER TABLE {schema}.usage_changes SET (
    vacuum_truncate = false, autovacuum_analyze_threshold = 2147483647);
