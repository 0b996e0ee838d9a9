"""A database with bloated indexes of all kinds, and the module that rebuilds them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg

from support.modules import checks_by_name, run_module
from support.postgresql import PostgresServer

PATIENCE = 120.0
LONG_NAME = "Ümlaut" + "x" * 56  # 63 bytes
GATE = 4711

# Rows, indexes, deletions; a rebuild wins more than 100 kB of each index that is told to be bloated.
KINDS = f"""
CREATE SCHEMA "Odd Schema";
CREATE TABLE student (id int PRIMARY KEY, name text NOT NULL, email text);
INSERT INTO student SELECT g, md5(g::text), NULL FROM generate_series(1, 20000) g;
CREATE INDEX student_name ON student (name) WITH (fillfactor = 80);
CREATE INDEX student_lower ON student (lower(name));
ALTER INDEX student_lower ALTER COLUMN 1 SET STATISTICS 77;
COMMENT ON INDEX student_name IS 'by name';
ALTER TABLE student REPLICA IDENTITY USING INDEX student_pkey;
ALTER TABLE student CLUSTER ON student_pkey;
CREATE TABLE "Odd Schema"."Odd ""Table" (id int, name text);
INSERT INTO "Odd Schema"."Odd ""Table" SELECT g, md5(g::text) FROM generate_series(1, 20000) g;
CREATE INDEX "{LONG_NAME}" ON "Odd Schema"."Odd ""Table" (name);
CREATE TABLE enrolment (id int, name text) PARTITION BY HASH (id);
CREATE TABLE enrolment_0 PARTITION OF enrolment FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE enrolment_1 PARTITION OF enrolment FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO enrolment SELECT g, md5(g::text) FROM generate_series(1, 40000) g;
CREATE INDEX enrolment_name ON enrolment (name);
CREATE TABLE document (id int, content text);
ALTER TABLE document ALTER content SET STORAGE EXTERNAL;
INSERT INTO document SELECT g, repeat('x', 9000) FROM generate_series(1, 2000) g;
CREATE MATERIALIZED VIEW roll AS SELECT g AS id, md5(g::text) AS name FROM generate_series(1, 20000) g;
CREATE UNIQUE INDEX roll_id ON roll (id);
CREATE TABLE booking (id int, slot int4range, EXCLUDE USING gist (slot WITH &&));
INSERT INTO booking SELECT g, int4range(g * 10, g * 10 + 5) FROM generate_series(1, 8000) g;
CREATE TABLE healthy (id int, name text);
INSERT INTO healthy SELECT g, md5(g::text) FROM generate_series(1, 20000) g;
CREATE INDEX healthy_name ON healthy (name);
DELETE FROM student WHERE id % 10 <> 0;
DELETE FROM "Odd Schema"."Odd ""Table" WHERE id % 10 <> 0;
DELETE FROM enrolment WHERE id % 10 <> 0;
DELETE FROM document WHERE id % 10 <> 0;
DELETE FROM booking WHERE id % 10 <> 0;
VACUUM (ANALYZE)
"""
BLOATED = [
    'shop."Odd Schema"."' + LONG_NAME + '"',
    "shop.public.enrolment_0_name_idx",
    "shop.public.enrolment_1_name_idx",
    "shop.public.student_lower",
    "shop.public.student_name",
    "shop.public.student_pkey",
]

GATED = f"""
CREATE FUNCTION through_the_gate(id int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
  'BEGIN PERFORM pg_catalog.pg_advisory_xact_lock_shared({GATE}); RETURN id; END';
CREATE TABLE gated (id int, name text);
INSERT INTO gated SELECT g, md5(g::text) FROM generate_series(1, 20000) g;
CREATE INDEX gated_id ON gated (through_the_gate(id));
DELETE FROM gated WHERE id % 10 <> 0;
VACUUM (ANALYZE) gated
"""


class ReindexSite:
    """A server with a database "shop", and a state directory."""

    def __init__(self, server: PostgresServer, state_dir: Path) -> None:
        self.server = server
        self.state_dir = state_dir
        self.runs = 0

    def make(self, script: str, dbname: str = "shop") -> None:
        """Run each statement of *script* on its own; none holds a semicolon inside, but in quotes of a function."""
        with self.server.connect(dbname) as connection:
            for statement in split(script):
                connection.execute(statement)  # type: ignore[call-overload]

    def options(self, **others: Any) -> dict[str, Any]:
        return {
            **self.server.login(),
            "state_dir": str(self.state_dir),
            "databases": ["shop"],
            "min_gain": "64KiB",
            "min_free_bytes": "1MiB",
            "retry_for": "0s",
            **others,
        }

    def run(self, check: bool = False, **others: Any) -> dict[str, Any]:
        return run_module("postgresql_reindex", self.options(**others), check=check)

    def indexes(self) -> dict[str, tuple[Any, ...]]:
        """What there is to know of each index: name → (file, valid, definition, owner, flags …)."""
        rows = self.server.sql(
            "SELECT n.nspname || '.' || c.relname, pg_relation_filenode(c.oid), x.indisvalid, pg_get_indexdef(c.oid), "
            "c.relowner, c.reloptions, c.reltablespace, x.indisunique, x.indisprimary, x.indisclustered, "
            "x.indisreplident, obj_description(c.oid, 'pg_class'), "
            "(SELECT array_agg(a.attstattarget ORDER BY a.attnum) FROM pg_attribute a WHERE a.attrelid = c.oid), "
            "(SELECT i.inhparent::regclass::text FROM pg_inherits i WHERE i.inhrelid = c.oid) "
            "FROM pg_index x JOIN pg_class c ON c.oid = x.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE c.oid >= 16384",
            "shop",
        )
        return {row[0]: row[1:] for row in rows}

    def invalid(self) -> list[str]:
        rows = self.server.sql(
            "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid ORDER BY 1", "shop"
        )
        return [row[0] for row in rows]

    def wal_position(self) -> Any:
        return self.server.sql("SELECT pg_current_wal_insert_lsn()::text")[0][0]

    def until(self, condition: str, dbname: str = "shop") -> None:
        """Wait until *condition* holds on the server."""
        end = time.monotonic() + PATIENCE
        with self.server.connect(dbname) as connection:
            while not connection.execute(f"SELECT {condition}").fetchone()[0]:  # type: ignore[index, call-overload]
                assert time.monotonic() < end, condition
                time.sleep(0.02)

    @contextlib.contextmanager
    def old_snapshot(self, seconds: float = 0.0) -> Iterator[psycopg.Connection[Any]]:
        """A session that holds a snapshot which is at least so many *seconds* old."""
        with self.server.connect("shop", application_name="old report") as connection:
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            connection.execute("SELECT 1")
            pid = connection.info.backend_pid
            self.until(
                f"clock_timestamp() - xact_start > {seconds} * interval '1 s' FROM pg_stat_activity WHERE pid = {pid}"
            )
            yield connection
            connection.rollback()

    @contextlib.contextmanager
    def closed_gate(self) -> Iterator[Callable[[], None]]:
        """Rebuilds of the index of GATED wait at the gate, which the block may open earlier."""
        with self.server.connect("shop") as connection:
            connection.execute("SELECT pg_advisory_lock(%s)", [GATE])
            yield lambda: connection.execute("SELECT pg_advisory_unlock_all()") and None
            connection.execute("SELECT pg_advisory_unlock_all()")

    def until_rebuild_waits_at_the_gate(self) -> None:
        self.until(
            "EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'wellkept reindex' "
            "AND query LIKE 'REINDEX%' AND wait_event = 'advisory')"
        )


def split(script: str) -> list[str]:
    """The statements of *script*: parts between semicolons, of which those within quotes do not count."""
    parts = [""]
    quoted = False
    for letter in script:
        quoted ^= letter == "'"
        if letter == ";" and not quoted:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def rebuilt(shown: dict[str, Any]) -> list[str]:
    return sorted(change["name"] for change in shown["changes"] if change["kind"] == "index")


def statuses(shown: dict[str, Any]) -> dict[str, str]:
    return {name: check["status"] for name, check in checks_by_name(shown).items()}


def leave_leftover(site: ReindexSite, index: str) -> None:
    """Let a rebuild of *index* (quoted) fail at its end, so that it leaves its copy behind."""
    with site.old_snapshot(), site.server.connect("shop") as connection:
        connection.execute("SET lock_timeout = '100ms'")
        with contextlib.suppress(psycopg.errors.LockNotAvailable):
            connection.execute(f"REINDEX INDEX CONCURRENTLY {index}")  # type: ignore[call-overload]
            raise AssertionError("the rebuild should have failed")
