# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the health check asks PostgreSQL; for servers from version 12 on."""

from __future__ import annotations

STATEMENT_TIMEOUT = "SELECT set_config('statement_timeout', %s, false)"

FACTS = """
SELECT pg_is_in_recovery() AS standby,
       current_setting('max_connections')::int AS max_connections,
       current_setting('superuser_reserved_connections')::int AS superuser_reserved,
       coalesce(current_setting('reserved_connections', true), '0')::int AS reserved,
       current_setting('autovacuum_freeze_max_age')::bigint AS freeze_max,
       current_setting('autovacuum_multixact_freeze_max_age')::bigint AS multixact_freeze_max,
       current_setting('archive_mode') AS archive_mode,
       pg_has_role('pg_monitor', 'USAGE') AS sees_all,
       current_user::text AS role,
       quote_ident(current_user) AS quoted_role
"""

CLIENTS = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
ALL_BACKENDS = "SELECT coalesce(sum(numbackends), 0)::int FROM pg_stat_database"

# Never the text of a query: it may hold anything.
OLDEST_TRANSACTION = """
SELECT * FROM (
    SELECT extract(epoch FROM clock_timestamp() - xact_start) AS seconds,
           format('pid %s of %s in %s (%s)', pid, usename, datname, application_name) AS who
    FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND xact_start IS NOT NULL AND pid <> pg_backend_pid()
    UNION ALL
    SELECT extract(epoch FROM clock_timestamp() - prepared),
           format('prepared transaction %s of %s in %s', gid, owner, database)
    FROM pg_prepared_xacts
) AS transactions
ORDER BY seconds DESC LIMIT 1
"""

OLDEST_IDLE = """
SELECT extract(epoch FROM clock_timestamp() - state_change) AS seconds,
       format('pid %s of %s in %s (%s)', pid, usename, datname, application_name) AS who
FROM pg_stat_activity
WHERE state LIKE 'idle in transaction%' AND pid <> pg_backend_pid()
ORDER BY state_change LIMIT 1
"""

XID_AGE = "SELECT datname, age(datfrozenxid)::bigint AS age FROM pg_database ORDER BY 2 DESC LIMIT 1"
MXID_AGE = "SELECT datname, mxid_age(datminmxid)::bigint AS age FROM pg_database ORDER BY 2 DESC LIMIT 1"

# Receivers of WAL that replay nothing (pg_receivewal) are judged by what they have written to disk. The replay lag is
# null when all is replayed and nothing new was written.
STANDBYS = """
SELECT coalesce(nullif(application_name, ''), 'pid ' || pid) ||
           CASE WHEN count(*) OVER (PARTITION BY application_name) > 1
                THEN coalesce(' at ' || client_addr::text, '') ELSE '' END AS standby,
       pg_wal_lsn_diff(pg_current_wal_lsn(), coalesce(replay_lsn, flush_lsn, write_lsn, sent_lsn)) AS bytes,
       extract(epoch FROM coalesce(replay_lag, flush_lag, write_lag)) AS seconds
FROM pg_stat_replication
WHERE state <> 'backup' AND application_name NOT LIKE 'wellkept%'
ORDER BY 1
"""

# A standby that has replayed all it received is not behind, however long ago the last transaction was.
OWN_LAG = """
SELECT EXISTS (SELECT FROM pg_stat_wal_receiver) AS receiving,
       pg_wal_lsn_diff(received, replayed) AS bytes,
       CASE WHEN received = replayed THEN 0
            ELSE extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) END AS seconds
FROM (SELECT coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) AS received,
             pg_last_wal_replay_lsn() AS replayed) AS positions
"""

ARCHIVER = """
SELECT failed_count,
       last_failed_wal,
       last_failed_time IS NOT NULL
           AND (last_archived_time IS NULL OR last_failed_time > last_archived_time) AS failing,
       extract(epoch FROM clock_timestamp()
           - coalesce(last_archived_time, stats_reset, pg_postmaster_start_time())) AS seconds_without_success
FROM pg_stat_archiver
"""

ARCHIVE_WAITING = "SELECT count(*) AS count FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'"
