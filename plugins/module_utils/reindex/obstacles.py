# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What stands in the way of a rebuild right now: too little room, replicas that lag, transactions it would wait for."""

from __future__ import annotations

import os
import typing as t

from .. import postgresql
from ..bloat.measure import IndexBloat
from ..database.rights import Rights
from ..quantities import human_bytes, human_seconds
from .settings import OLD_TRANSACTION, Settings

# A rebuild waits for every transaction of the database whose snapshot is older than it, and for all with locks on the
# table. A plain VACUUM elsewhere does not count; one on the table has a lock on it.
_SNAPSHOTS = """
SELECT a.pid, a.application_name AS application, a.usename AS role, a.state, a.backend_type AS backend,
       extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS seconds
FROM pg_catalog.pg_stat_activity a
WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND a.backend_xmin IS NOT NULL
  AND a.backend_type <> 'autovacuum worker' AND a.xact_start < clock_timestamp() - %s * interval '1 second'
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_progress_vacuum v WHERE v.pid = a.pid)
ORDER BY a.xact_start
"""
# A prepared transaction has no process; its lock on its own number tells which one it is.
_LOCKS = """
SELECT l.pid, p.gid, a.application_name AS application, a.usename AS role, a.state, a.backend_type AS backend, l.mode,
       extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS seconds
FROM pg_catalog.pg_locks l
LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
LEFT JOIN LATERAL (
  SELECT string_agg(DISTINCT x.gid, ' or ') AS gid
  FROM pg_catalog.pg_locks t JOIN pg_catalog.pg_prepared_xacts x ON x.transaction = t.transactionid
  WHERE l.pid IS NULL AND t.pid IS NULL AND t.virtualtransaction = l.virtualtransaction
) p ON true
WHERE l.locktype = 'relation' AND l.relation = %s::oid AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid()
  AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
  AND (l.pid IS NULL OR a.xact_start < clock_timestamp() - %s * interval '1 second' OR l.mode IN (
    'ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock'))
ORDER BY a.backend_type <> 'autovacuum worker', a.xact_start
"""
_REPLICAS = """
SELECT application_name AS name, client_addr::text AS address, state,
       pg_wal_lsn_diff(pg_current_wal_lsn(), coalesce(replay_lsn, flush_lsn, write_lsn))::bigint AS lag
FROM pg_catalog.pg_stat_replication WHERE coalesce(replay_lsn, flush_lsn, write_lsn) IS NOT NULL ORDER BY 4 DESC
"""
_SLOTS = """
SELECT slot_name AS name, active, safe_wal_size::bigint AS room
FROM pg_catalog.pg_replication_slots WHERE safe_wal_size IS NOT NULL ORDER BY 3
"""


class Site(t.NamedTuple):
    """Where the server keeps its files; without ``data_directory`` they cannot be seen, and ``problem`` says why."""

    data_directory: str
    problem: str


class Surroundings(t.NamedTuple):
    """What decides about obstacles, besides the index."""

    settings: Settings
    rights: Rights
    site: Site


class Weather(t.NamedTuple):
    """``obstacles`` say why not to rebuild now; ``unknown`` says what could not be looked at."""

    obstacles: t.List[str]
    unknown: t.List[str]


def look(connection: t.Any, index: IndexBloat, predicted_bytes: int, around: Surroundings) -> Weather:
    """What stands in the way of rebuilding *index* to *predicted_bytes* now."""
    weather = Weather([], [])
    weather.obstacles.extend(lockers(connection, index.table_oid))
    weather.obstacles.extend(_snapshots(connection))
    weather.obstacles.extend(_replication(connection, predicted_bytes, around.settings))
    if not around.rights.sees_all_sessions:
        weather.unknown.append(
            "transactions and replicas that the role is not shown (GRANT pg_read_all_stats would show them)"
        )
    _room(connection, index, predicted_bytes, around, weather)
    return weather


def lockers(connection: t.Any, table_oid: int) -> t.Iterator[str]:
    """Who has the table locked, so that rebuilding or dropping an index of it would have to wait."""
    for row in postgresql.query(connection, _LOCKS, [table_oid, OLD_TRANSACTION])[:1]:
        if row["backend"] == "autovacuum worker":
            yield f"autovacuum (process {row['pid']}) is at work on its table"
        elif row["pid"] is None:
            yield f"the prepared transaction {row['gid'] or 'unknown'} has its table locked"
        else:
            yield f"{_session(row)} has its table locked"


def _snapshots(connection: t.Any) -> t.Iterator[str]:
    for row in postgresql.query(connection, _SNAPSHOTS, [OLD_TRANSACTION])[:1]:
        yield f"{_session(row)} holds a snapshot that the rebuild would have to wait for"


def _session(row: t.Mapping[str, t.Any]) -> str:
    words = [row["application"] or "", f"role {row['role']}" if row["role"] else "", row["state"] or ""]
    since = f", for {human_seconds(row['seconds'])}" if row["seconds"] is not None else ""
    return f"the session {row['pid']} ({', '.join(word for word in words if word)}{since})"


def _replication(connection: t.Any, predicted_bytes: int, settings: Settings) -> t.Iterator[str]:
    for row in postgresql.query(connection, _REPLICAS)[:1]:
        if row["lag"] > settings.max_replica_lag:
            yield (
                f"the standby {row['name']} ({row['address'] or 'local'}) lags by {human_bytes(row['lag'])}, more than "
                f"{human_bytes(settings.max_replica_lag)}"
            )
    # As much WAL as the new index is large, and as much again by others meanwhile.
    for row in postgresql.query(connection, _SLOTS)[:1]:
        if row["room"] < 2 * predicted_bytes:
            yield (
                f"the replication slot {row['name']} ({'active' if row['active'] else 'inactive'}) would be lost after "
                f"{human_bytes(max(0, row['room']))} more of WAL"
            )


def _room(connection: t.Any, index: IndexBloat, predicted_bytes: int, around: Surroundings, weather: Weather) -> None:
    site, keep = around.site, around.settings.min_free_bytes
    if not site.data_directory:
        weather.unknown.append(f"free disk space: {site.problem}")
        return
    try:
        places = places_of(connection, index, site)
        needed, free = sum_by_device(places, predicted_bytes, lambda path: os.stat(path).st_dev, _free)
    except OSError as error:
        weather.unknown.append(f"free disk space: {error.filename}: {error.strerror}")
        return
    for device, size in needed.items():
        place, room = free[device]
        if room < size + keep:
            weather.obstacles.append(
                f"{place} has {human_bytes(room)} free; the rebuild takes up to {human_bytes(size)} there, and "
                f"{human_bytes(keep)} are to remain"
            )


def places_of(connection: t.Any, index: IndexBloat, site: Site) -> list[str]:
    """The directories that a rebuild writes to: the index's own, that of sorting, that of the WAL."""
    rows = postgresql.query(
        connection,
        "SELECT s.spcname AS name, pg_tablespace_location(s.oid) AS place, d.dattablespace = s.oid AS is_default, "
        "current_setting('temp_tablespaces') AS temporary "
        "FROM pg_catalog.pg_tablespace s, pg_catalog.pg_database d WHERE d.datname = current_database()",
    )
    paths = {row["name"]: row["place"] or os.path.join(site.data_directory, "base") for row in rows}
    default = next(row["name"] for row in rows if row["is_default"])
    temporary = [name.strip().strip('"') for name in rows[0]["temporary"].split(",")]
    sorting = next((name for name in temporary if name in paths), default)
    wal = os.path.realpath(os.path.join(site.data_directory, "pg_wal"))
    return [paths.get(index.tablespace, paths[default]), paths[sorting], wal]


def sum_by_device(
    places: t.Sequence[str],
    size: int,
    device_of: t.Callable[[str], int],
    free_in: t.Callable[[str], int],
) -> tuple[dict[int, int], dict[int, tuple[str, int]]]:
    """Bytes needed on each device when *size* is written to each of *places*, and (place, free bytes) there."""
    needed: dict[int, int] = {}
    free: dict[int, tuple[str, int]] = {}
    for place in places:
        device = device_of(place)
        needed[device] = needed.get(device, 0) + size
        free.setdefault(device, (place, free_in(place)))
    return needed, free


def _free(path: str) -> int:
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def find_site(connection: t.Any) -> Site:
    """Where the files of the server of *connection* are, if they are on this host, and surely its."""
    facts = postgresql.query(
        connection,
        "SELECT (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'data_directory') AS place, "
        "extract(epoch FROM pg_postmaster_start_time())::float8 AS started, current_setting('port') AS port",
    )[0]
    place = facts["place"]
    if not place:
        return Site("", "the role may not ask where the server's files are (GRANT pg_read_all_settings would allow it)")
    try:
        with open(os.path.join(place, "postmaster.pid"), encoding="utf-8", errors="replace") as stream:
            lines = stream.read().splitlines()
    except OSError as error:
        return Site("", f"the server's files cannot be seen from here ({place}: {error.strerror})")
    same = len(lines) > 3 and lines[3] == facts["port"] and abs(float(lines[2]) - facts["started"]) < 60
    return Site(place, "") if same else Site("", f"{place} on this host belongs to another server")
