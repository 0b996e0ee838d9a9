"""What a restore test says of schema, sequences, extensions and roles: each difference is named."""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils import postgresql
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.repository import Backup
from ansible_collections.wellkept.maintenance.plugins.module_utils.catalog import record
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore.catalog_checks import check_catalogs
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore.scratch_cluster import ScratchCluster
from ansible_collections.wellkept.maintenance.plugins.module_utils.result import Part
from support.postgresql import available_majors, bin_dir_of, postgres_server, server_id
from support.restore import RestoreSite

SCHEMA = """
CREATE ROLE reader;
CREATE ROLE teacher LOGIN PASSWORD 'chalk' CONNECTION LIMIT 5;
GRANT reader TO teacher;
ALTER ROLE teacher SET work_mem = '7MB';
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE DOMAIN mark AS int CHECK (VALUE BETWEEN 1 AND 6);
CREATE TABLE student (id serial PRIMARY KEY, number int GENERATED ALWAYS AS IDENTITY, name text NOT NULL DEFAULT 'x',
                      mood mood DEFAULT 'good' CHECK (mood <> 'bad'), mark mark);
CREATE TABLE grade (student int REFERENCES student, value numeric(4, 1));
CREATE INDEX student_name ON student (lower(name)) WHERE id > 3;
CREATE VIEW student_names AS SELECT name FROM student;
CREATE FUNCTION greet(who text DEFAULT 'you') RETURNS text LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER stamped BEFORE INSERT ON student FOR EACH ROW EXECUTE FUNCTION stamp();
CREATE POLICY own ON student USING (name = current_user);
CREATE TABLE parted (a int) PARTITION BY RANGE (a);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10);
GRANT SELECT ON student TO reader;
GRANT UPDATE (name) ON student TO teacher;
ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO reader;
CREATE EXTENSION pg_stat_statements;
CREATE EXTENSION btree_gist;
CREATE SEQUENCE receipts;
INSERT INTO student (name) SELECT 'student ' || g FROM generate_series(1, 500) g;
SELECT setval('receipts', 9000);
"""

# What happens to the restored cluster before it is looked at, and what must be named in which check.
SCHEMA_CHECK, ROLES = "schema of the restored database postgres", "roles and rights of the restored cluster"
EXTENSIONS, SEQUENCES = "extensions of the restored database postgres", "sequences of the restored database postgres"
FAULTS = [
    ("DROP VIEW student_names", SCHEMA_CHECK, "relation public.student_names is missing"),
    ("CREATE OR REPLACE FUNCTION greet(who text DEFAULT 'you') RETURNS text LANGUAGE sql AS 'SELECT $1 || $1'",
     SCHEMA_CHECK, "function public.greet(text): its definition differs"),
    ("ALTER TABLE student ALTER name SET DEFAULT 'y'", SCHEMA_CHECK, "column public.student.name: its default differs"),
    ("ALTER TABLE grade ALTER value TYPE numeric(5, 1)", SCHEMA_CHECK,
     "column public.grade.value: its type is numeric(5,1) instead of numeric(4,1)"),
    ("ALTER TABLE student DROP CONSTRAINT student_mood_check", SCHEMA_CHECK,
     "constraint student_mood_check on public.student is missing"),
    ("ALTER TABLE grade DROP CONSTRAINT grade_student_fkey", SCHEMA_CHECK,
     "constraint grade_student_fkey on public.grade is missing"),
    ("DROP INDEX student_name", SCHEMA_CHECK, "index public.student_name is missing"),
    ("ALTER TABLE student DISABLE TRIGGER stamped", SCHEMA_CHECK,
     "trigger stamped on public.student: its enabled is D"),
    ("DROP POLICY own ON student", SCHEMA_CHECK, "policy own on public.student is missing"),
    ("ALTER TABLE student ENABLE ROW LEVEL SECURITY", SCHEMA_CHECK, "its row security is True instead of False"),
    ("ALTER TYPE mood ADD VALUE 'soso'", SCHEMA_CHECK, "type public.mood: its values differs"),
    ("REVOKE SELECT ON student FROM reader", SCHEMA_CHECK, "relation public.student: its rights is"),
    ("REVOKE UPDATE (name) ON student FROM teacher", SCHEMA_CHECK, "column public.student.name: its rights is none"),
    ("ALTER DEFAULT PRIVILEGES REVOKE SELECT ON TABLES FROM reader", SCHEMA_CHECK, "default rights of postgres"),
    ("ALTER VIEW student_names OWNER TO teacher", SCHEMA_CHECK, "its owner is teacher instead of postgres"),
    ("REVOKE reader FROM teacher", ROLES, "membership of teacher in reader, granted by postgres is missing"),
    ("ALTER ROLE teacher SUPERUSER", ROLES, "role teacher: its superuser is True instead of False"),
    ("ALTER ROLE teacher PASSWORD 'other'", ROLES, "role teacher: its password differs"),
    ("ALTER ROLE teacher RENAME TO professor", ROLES, "role teacher is missing"),
    ("ALTER ROLE teacher SET work_mem = '8MB'", ROLES, "settings of teacher in all databases: its values differs"),
    ("REVOKE CONNECT ON DATABASE postgres FROM public", ROLES, "database postgres: its rights is"),
    ("DROP EXTENSION pg_stat_statements", EXTENSIONS, "extension pg_stat_statements is missing"),
    ("SELECT setval('receipts', 8000)", SEQUENCES, "public.receipts stands at 8000, though it had given 9000"),
    ("DROP SEQUENCE receipts", SCHEMA_CHECK, "sequence public.receipts is missing"),
]  # fmt: skip


@pytest.fixture(scope="module", params=available_majors(), ids=server_id)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RestoreSite]:
    with postgres_server(bin_dir=bin_dir_of(request.param)) as server:
        site = RestoreSite(server, tmp_path_factory.mktemp("restore"))
        server.sql(SCHEMA)
        yield site


@pytest.fixture(scope="module")
def good(site: RestoreSite) -> Backup:
    return site.back_up(dump=False)


@contextlib.contextmanager
def after_the_start(change: Callable[[ScratchCluster], None]) -> Iterator[None]:
    """Whatever is restored meanwhile is changed when it has started, before it is looked at."""
    genuine = ScratchCluster.find_superuser

    def find_superuser(cluster: ScratchCluster, candidates: Any, dbname: str) -> None:
        genuine(cluster, candidates, dbname)
        change(cluster)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScratchCluster, "find_superuser", find_superuser)
        yield


def statuses(part: Part) -> dict[str, str]:
    return {check["name"]: check["status"] for check in part.checks}


def differences(part: Part, check: str) -> list[str]:
    (found,) = [one for one in part.checks if one["name"] == check]
    assert found["status"] == "failed", found
    return list(found["evidence"]["differences"])


def test_the_same_passes_and_says_what_was_compared(site: RestoreSite, good: Backup) -> None:
    part = site.prove(good)
    assert set(statuses(part).values()) == {"passed"}, part.checks
    assert {SCHEMA_CHECK, ROLES, EXTENSIONS, SEQUENCES, "versions of collations"} <= set(statuses(part))
    listed = json.loads(Path(good.path(record.FILE)).read_text())
    assert "chalk" not in json.dumps(listed)
    assert listed["changing"] == []
    assert Path(good.path(record.FILE)).stat().st_mode & 0o077 == 0


class Uncommitted:
    """A connection with an open transaction, which stays open whoever closes it."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self.connection, name)

    def close(self) -> None:
        pass


@contextlib.contextmanager
def changed(cluster: ScratchCluster, statement: str) -> Iterator[None]:
    """Whoever connects to the database postgres meanwhile sees what *statement* has done; then it is undone."""
    genuine = cluster.connect
    with contextlib.closing(genuine("postgres")) as connection:
        connection.autocommit = False
        connection.execute(statement)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                cluster, "connect", lambda name: Uncommitted(connection) if name == "postgres" else genuine(name)
            )
            yield
        connection.rollback()


def test_each_difference_is_named(site: RestoreSite, good: Backup) -> None:
    """All in one restore: each fault is made in the restored cluster, looked at and taken back."""
    recorded = record.read(good.path(record.FILE))
    missed = []

    def try_each(cluster: ScratchCluster) -> None:
        for statement, check, words in FAULTS:
            part = Part()
            with changed(cluster, statement):
                check_catalogs(cluster, recorded, "postgres", part)
            if not any(words in line for line in differences(part, check)):
                missed.append((statement, part.failures()))

    with after_the_start(try_each):
        site.prove(good)
    assert missed == []


def test_a_database_without_fingerprints_is_told(site: RestoreSite, good: Backup) -> None:
    def create(cluster: ScratchCluster) -> None:
        with contextlib.closing(cluster.connect("postgres")) as connection:
            postgresql.query(connection, "CREATE DATABASE later")

    with after_the_start(create):
        part = site.prove(good)
    assert statuses(part)["content of the restored database later"] == "unknown"


def test_a_library_that_is_not_on_this_host_is_named(site: RestoreSite, good: Backup) -> None:
    def lose(cluster: ScratchCluster) -> None:
        with contextlib.closing(cluster.connect("postgres")) as connection:
            connection.execute(
                "UPDATE pg_catalog.pg_proc SET probin = '$libdir/gone' WHERE probin = '$libdir/btree_gist'"
            )

    with after_the_start(lose):
        part = site.prove(good)
    assert any("library $libdir/gone: could not access file" in line for line in differences(part, EXTENSIONS))


def test_other_rules_for_sorting_are_a_warning(site: RestoreSite, good: Backup) -> None:
    def age(cluster: ScratchCluster) -> None:
        with contextlib.closing(cluster.connect("postgres")) as connection:
            connection.execute("UPDATE pg_catalog.pg_collation SET collversion = '1.0' WHERE collname = 'unicode'")
            connection.execute(
                "INSERT INTO pg_catalog.pg_collation (oid, collname, collnamespace, collowner, collprovider, "
                "collisdeterministic, collencoding, collcollate, collctype, collversion) "
                "SELECT 99999, 'old', collnamespace, collowner, 'c', true, -1, 'en_US', 'en_US', '2.1' "
                "FROM pg_catalog.pg_collation LIMIT 1"
            )

    with after_the_start(age):
        part = site.prove(good)
    (found,) = [check for check in part.checks if check["name"] == "versions of collations"]
    assert found["status"] == "warned"
    assert "old in postgres: 2.1, here" in found["observed"]


def test_numbers_ahead_of_their_sequence_are_a_warning_and_no_fault_of_the_backup(site: RestoreSite) -> None:
    site.server.sql("INSERT INTO student (id, name) VALUES (7000, 'by hand')")
    try:
        part = site.prove(site.back_up(dump=False))
    finally:
        site.server.sql("DELETE FROM student WHERE id = 7000")
    assert not part.failures()
    (found,) = [check for check in part.checks if check["status"] == "warned"]
    assert "public.student.id holds 7000, public.student_id_seq stands at 500" in found["observed"]


def test_sequences_that_are_used_meanwhile_raise_no_alarm(site: RestoreSite) -> None:
    with site.server.connect() as connection:
        backups = []
        thread = threading.Thread(target=lambda: backups.append(site.back_up(dump=False)))
        thread.start()
        while thread.is_alive():
            connection.execute("SELECT nextval('receipts') FROM generate_series(1, 50)")
        thread.join()
    assert not site.prove(backups[0]).failures()


def test_what_changes_while_it_is_listed_is_left_out_and_named(site: RestoreSite) -> None:
    """Functions and roles come and go all the time: no lock holds them still."""
    stop = threading.Event()

    def change() -> None:
        with site.server.connect() as connection:
            for number in itertools.count(1):
                if stop.is_set():
                    return
                connection.execute(f"CREATE OR REPLACE FUNCTION busy() RETURNS int LANGUAGE sql AS 'SELECT {number}'")
                connection.execute(f"CREATE ROLE passing_{number}")
                connection.execute(f"DROP ROLE IF EXISTS passing_{max(number - 3, 0)}")
                time.sleep(0.02)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        backups = [site.back_up(dump=False) for _number in range(3)]
    finally:
        stop.set()
        thread.join()
    for backup in backups:
        part = site.prove(backup)
        assert not part.failures()
        # What came and went between both listings is in neither.
        warned = [check["observed"] for check in part.checks if check["status"] == "warned"]
        assert all("passing_" in words and "should not be there" in words for words in warned)


def test_a_backup_from_before_catalogs_were_listed_is_still_tested_and_says_so(site: RestoreSite, good: Backup) -> None:
    path = Path(good.path(record.FILE))
    kept = path.read_bytes()
    files = [entry for entry in good.metadata["files"] if entry["path"] != record.FILE]
    path.unlink()
    site.rewrite(good, files=files)
    try:
        part = site.prove(site.repository.backup(good.label))
    finally:
        path.write_bytes(kept)
        site.rewrite(good)
    unknown = {check["name"]: check["observed"] for check in part.checks if check["status"] == "unknown"}
    assert "not compared" in unknown["schema, sequences, roles and extensions of the restored cluster"]
    assert not part.failures()
