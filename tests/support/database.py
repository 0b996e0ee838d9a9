"""Databases to maintain in tests: truly bloated indexes of all sorts, and what must be the same afterwards."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from ansible_collections.wellkept.maintenance.plugins.module_utils import fingerprint
from ansible_collections.wellkept.maintenance.plugins.module_utils.lock import is_free

from .postgresql import PostgresServer
from .waiting import wait_until

# Names of 63 bytes: what a rebuild appends makes the server shorten them, in the second one between two bytes of a
# letter if it counted bytes alone.
LONG = "i" * 59 + "_idx"
LONG_LETTERS = "ü" * 29 + "x_idx"

SCHEMA = f"""
CREATE TABLE student (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, email text NOT NULL UNIQUE, name text,
                      born date, place point, tags int[], essay text);
INSERT INTO student (email, name, born, place, tags, essay)
  SELECT 'student' || g || '@campus.example', 'Name ' || g % 97, date '1990-01-01' + g, point(g % 100, g / 100),
         ARRAY[g % 7, g % 11, g % 13], CASE WHEN g % 5 = 0 THEN
           (SELECT string_agg(md5(g::text || h), '') FROM generate_series(1, 90) h) END
  FROM generate_series(1, {{rows}}) g;
ALTER TABLE student CLUSTER ON student_email_key;
CREATE INDEX student_lower_name ON student (lower(name)) INCLUDE (email);
ALTER INDEX student_lower_name ALTER COLUMN 1 SET STATISTICS 150;
COMMENT ON INDEX student_lower_name IS 'for the search box';
CREATE INDEX student_young ON student (born DESC NULLS LAST) WHERE born > '1990-06-01';
CREATE INDEX student_place ON student USING gist (place);
CREATE INDEX student_tags ON student USING gin (tags);
CREATE INDEX student_born_brin ON student USING brin (born);
CREATE INDEX {LONG} ON student (name, born);
CREATE INDEX "{LONG_LETTERS}" ON student (born, name);

CREATE SCHEMA "Kurs Plan";
CREATE TABLE "Kurs Plan"."Teil""nehmer; --" (id int PRIMARY KEY, kurs int, student bigint REFERENCES student,
                                            EXCLUDE USING gist (int8range(student, student, '[]') WITH &&));
ALTER TABLE "Kurs Plan"."Teil""nehmer; --" REPLICA IDENTITY USING INDEX "Teil""nehmer; --_pkey";
INSERT INTO "Kurs Plan"."Teil""nehmer; --" SELECT g, g % 40, g FROM generate_series(1, {{rows}} / 2) g;
CREATE UNIQUE INDEX "Kurs ""und"" Teilnehmer.x" ON "Kurs Plan"."Teil""nehmer; --" (kurs, student);

CREATE TABLE visit (at date NOT NULL, student bigint, page text, PRIMARY KEY (at, student)) PARTITION BY RANGE (at);
CREATE TABLE visit_2026_1 PARTITION OF visit FOR VALUES FROM ('2026-01-01') TO ('2026-07-01');
CREATE TABLE visit_2026_2 PARTITION OF visit FOR VALUES FROM ('2026-07-01') TO ('2027-01-01');
INSERT INTO visit SELECT date '2026-01-01' + g % 360, g, 'page ' || g % 50 FROM generate_series(1, {{rows}}) g;
CREATE INDEX visit_page ON visit (page);

CREATE MATERIALIZED VIEW pages AS SELECT page, count(*) AS visits FROM visit GROUP BY page;
CREATE UNIQUE INDEX pages_page ON pages (page);
"""

# With fillfactor 10 an index is built to be almost empty; without the option afterwards, it is bloated by any measure.
_SPARSE = """
ALTER INDEX {name} SET (fillfactor = 10);
REINDEX INDEX {name};
ALTER INDEX {name} RESET (fillfactor);
"""
_BLOATABLE = """
SELECT c.oid::regclass::text FROM pg_index x JOIN pg_class c ON c.oid = x.indexrelid JOIN pg_am a ON a.oid = c.relam
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE x.indisvalid AND a.amname IN ('btree', 'gist') AND c.relkind = 'i' AND c.oid >= 16384
  AND n.nspname NOT LIKE 'pg\\_%' AND c.relname LIKE '{pattern}' ORDER BY 1
"""


def create_database(server: PostgresServer, name: str, rows: int = 2000) -> None:
    """A database with tables and indexes of all sorts, the btree and GiST indexes and a TOAST index bloated."""
    server.sql(f'CREATE DATABASE "{name}"')
    with server.connect(name) as connection:
        connection.execute(SCHEMA.format(rows=rows))  # type: ignore[call-overload]
        for extension in ("amcheck", "pgstattuple"):
            connection.execute(f"CREATE EXTENSION IF NOT EXISTS {extension}")  # type: ignore[call-overload]
        connection.execute("UPDATE student SET essay = NULL WHERE id % 50 <> 0")
        connection.execute("VACUUM ANALYZE")
    bloat(server, name)


def bloat(server: PostgresServer, dbname: str, pattern: str = "%") -> list[str]:
    """Make the btree and GiST indexes whose names are like *pattern* almost empty; returns their names.

    Only valid ones: a leftover that is rebuilt would become a valid index.
    """
    with server.connect(dbname) as connection:
        connection.execute("SET campus.pause = 0")  # where functions in indexes are slow by this setting
        names = [name for (name,) in connection.execute(_BLOATABLE.format(pattern=pattern)).fetchall()]  # type: ignore[call-overload]
        for name in names:
            connection.execute(_SPARSE.format(name=name))  # type: ignore[call-overload]
    return names


def reindex_options(server: PostgresServer, state_dir: Path, dbname: str, **others: Any) -> dict[str, Any]:
    """Options under which the small bloated indexes of tests are worth a rebuild."""
    return {
        **server.login(),
        "state_dir": str(state_dir),
        "databases": [dbname],
        "min_gain": "8KiB",
        "min_free_bytes": "1MiB",
        "unique_indexes": "always",
        "retry_for": "0",
        **others,
    }


# -- what must be the same afterwards --

_DEFINITIONS = """
SELECT format('%I.%I', n.nspname, c.relname) AS name, pg_get_indexdef(c.oid) AS definition, x.indisvalid, x.indisready,
  x.indislive, x.indisunique, x.indisprimary, x.indisexclusion, x.indisclustered, x.indisreplident, c.reloptions,
  c.relpersistence, pg_get_userbyid(c.relowner) AS owner, obj_description(c.oid, 'pg_class') AS comment,
  (SELECT spcname FROM pg_tablespace s WHERE s.oid = c.reltablespace) AS tablespace,
  (SELECT i.inhparent::regclass::text FROM pg_inherits i WHERE i.inhrelid = c.oid) AS parent,
  (SELECT array_agg(format('%s %s', k.conname, pg_get_constraintdef(k.oid)) ORDER BY k.conname) FROM pg_constraint k
    WHERE k.conindid = c.oid) AS constraints,
  (SELECT array_agg(t.attstattarget ORDER BY t.attnum) FROM pg_attribute t WHERE t.attrelid = c.oid) AS statistics
FROM pg_index x JOIN pg_class c ON c.oid = x.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND c.oid >= 16384 AND c.relpersistence <> 't'
"""


def definitions(connection: psycopg.Connection[Any]) -> dict[str, tuple[Any, ...]]:
    """Each index, those of TOAST tables too, with all that makes it what it is and that a rebuild must keep."""
    return {row[0]: row[1:] for row in connection.execute(_DEFINITIONS).fetchall()}


_INDEXES_TO_CHECK = """
SELECT c.oid::int8 FROM pg_index x JOIN pg_class c ON c.oid = x.indexrelid JOIN pg_am a ON a.oid = c.relam
WHERE a.amname = 'btree' AND c.relkind = 'i' AND x.indisvalid AND c.oid >= 16384 AND c.relpersistence <> 't'
"""


def check_indexes(connection: psycopg.Connection[Any]) -> None:
    """Raise an error unless each valid btree index is sound, and holds every row of its table."""
    for (oid,) in connection.execute(_INDEXES_TO_CHECK).fetchall():
        connection.execute("SELECT bt_index_check(%s::oid::regclass, true)", [oid])


class Content(NamedTuple):
    """What a database holds, and by which indexes."""

    tables: dict[str, Any]
    indexes: dict[str, tuple[Any, ...]]


def content(server: PostgresServer, dbname: str) -> Content:
    """Fingerprints of tables and definitions of indexes; sound indexes are made sure of."""
    with server.connect(dbname) as connection:
        connection.execute("SET campus.pause = 0")
        check_indexes(connection)
        indexes = definitions(connection)
        compared, _not_compared = fingerprint.tables(connection)
        return Content(fingerprint.fingerprint(connection, compared), indexes)


def assert_same(expected: Content, observed: Content) -> None:
    """Nothing is lost, nothing is left over, all is as it was."""
    assert sorted(expected.indexes.keys() - observed.indexes.keys()) == [], "indexes were lost"
    assert sorted(observed.indexes.keys() - expected.indexes.keys()) == [], "indexes are left over"
    assert observed.indexes == expected.indexes
    assert fingerprint.compare(expected.tables, observed.tables) == []


def assert_nothing_lost(expected: Content, observed: Content) -> None:
    """All is there, perhaps with more beside it: what holds after a kill and before the next run."""
    assert {name: observed.indexes.get(name) for name in expected.indexes} == expected.indexes
    assert fingerprint.compare(expected.tables, observed.tables) == []


# -- what must not be left --

_SESSIONS = """
SELECT format('session %s: %s', application_name, query) FROM pg_stat_activity WHERE application_name LIKE 'wellkept%'
UNION ALL
SELECT format('lock %s %s of %s', l.locktype, l.mode, l.pid) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' OR a.application_name LIKE 'wellkept%'
"""


def left_behind(server: PostgresServer, state_dir: str | Path) -> list[str]:
    """Sessions, locks in the server and locks of files that somebody still has."""
    left = [text for (text,) in server.sql(_SESSIONS)]
    return left + [str(path) for path in Path(state_dir).rglob("*.lock") if not is_free(str(path))]


def assert_nothing_left_behind(server: PostgresServer, state_dir: str | Path) -> None:
    """The server ends the sessions of a killed client within half a second or so."""
    wait_until(lambda: not left_behind(server, state_dir), lambda: left_behind(server, state_dir))


# -- servers that are killed --


def postmaster(server: PostgresServer) -> int:
    return int((server.data / "postmaster.pid").read_text().split()[0])


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(word) for word in task.read_text().split()]
    return found


def kill_postmaster(server: PostgresServer) -> None:
    """Kill the postmaster, and wait until those whom it leaves behind have noticed."""
    pid = postmaster(server)
    orphans = _children(pid)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(_is_postgres(orphan) for orphan in (pid, *orphans)))
    # Where nobody reaps orphans, the number of the dead one stays taken, and a new one would refuse to start.
    (server.data / "postmaster.pid").unlink()
    (server.socket_dir / f".s.PGSQL.{server.port}.lock").unlink()


def _is_postgres(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    return "Name:\tpostgres" in status and "State:\tZ" not in status


def wait_until_up(server: PostgresServer) -> None:
    """Wait until a server that restarts itself takes connections."""

    def answers() -> bool:
        with contextlib.suppress(psycopg.Error):
            return bool(server.sql("SELECT NOT pg_is_in_recovery()")[0][0])
        return False

    wait_until(answers)
