"""Fingerprints on a real server: every type, every kind of table, no dependence on order or settings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.wellkept.maintenance.plugins.module_utils.fingerprint import (
    Table,
    batches,
    compare,
    fingerprint,
    hold,
    quoted,
    tables,
    with_methods_of,
)
from support.postgresql import PostgresServer

Connection = Any


@pytest.fixture
def database(postgresql: PostgresServer) -> Iterator[str]:
    postgresql.sql("CREATE DATABASE fingerprints TEMPLATE template0")
    yield "fingerprints"
    postgresql.sql("DROP DATABASE fingerprints WITH (FORCE)")


@pytest.fixture
def connection(postgresql: PostgresServer, database: str) -> Iterator[Connection]:
    with postgresql.connect(database) as connection:
        yield connection


def taken(connection: Connection) -> dict[str, dict[str, Any]]:
    return fingerprint(connection, tables(connection)[0])


def test_every_type_that_a_column_can_have_is_read(connection: Connection) -> None:
    rows = connection.execute(
        "SELECT format_type(oid, NULL), typname FROM pg_type WHERE typnamespace = 'pg_catalog'::regnamespace "
        "AND typtype IN ('b', 'r', 'm') AND typname !~ '^(_|pg_)'"
    ).fetchall()
    for number, (name, _typname) in enumerate(rows):
        connection.execute(f"CREATE TABLE t{number} (plain {name}, array_of {name}[])")
        connection.execute(f"INSERT INTO t{number} VALUES (NULL, ARRAY[NULL]::{name}[])")
    found = taken(connection)
    assert len(found) == len(rows) > 60
    assert all(entry["rows"] == 1 for entry in found.values())
    methods = {typname: found[f"public.t{number}"]["method"] for number, (_name, typname) in enumerate(rows)}
    assert (
        methods["int4"] == methods["text"] == methods["varchar"] == methods["jsonb"] == methods["int4range"] == "record"
    )
    assert methods["json"] == methods["point"] == methods["xml"] == methods["money"] == methods["regclass"] == "text"


@pytest.mark.parametrize(
    ("definition", "method"),
    [
        ("CREATE DOMAIN plain AS integer; CREATE TABLE t (a plain)", "record"),
        ("CREATE DOMAIN document AS json; CREATE TABLE t (a document)", "text"),
        ("CREATE DOMAIN document AS json; CREATE TABLE t (a document[])", "text"),
        ("CREATE TYPE pair AS (a int, b text); CREATE TABLE t (a pair[])", "record"),
        ("CREATE TYPE pair AS (a int, b json); CREATE TABLE t (a pair)", "text"),
        (
            "CREATE TYPE inner_pair AS (a point[]); CREATE TYPE pair AS (b inner_pair); CREATE TABLE t (a pair[])",
            "text",
        ),
        ("CREATE TYPE mood AS ENUM ('good'); CREATE TABLE t (a mood)", "text"),
        ("CREATE TYPE span AS RANGE (subtype = numeric); CREATE TABLE t (a span)", "record"),
        (
            "CREATE TYPE mood AS ENUM ('good'); CREATE TYPE span AS RANGE (subtype = mood); CREATE TABLE t (a span)",
            "text",
        ),
        (
            'CREATE COLLATION vague FROM "C"; CREATE TABLE t (a text COLLATE vague);'
            "UPDATE pg_collation SET collisdeterministic = false WHERE collname = 'vague'",
            "text",
        ),
        ("CREATE TABLE t (a json, b int); ALTER TABLE t DROP COLUMN a", "record"),
        ("CREATE TABLE t ()", "record"),
    ],
)
def test_the_method_follows_from_what_the_types_are_made_of(
    connection: Connection, definition: str, method: str
) -> None:
    for statement in definition.split(";"):
        connection.execute(statement)
    assert [table.method for table in tables(connection)[0]] == [method]
    assert taken(connection)["public.t"] == {"rows": 0, "sum": "0", "method": method}


@pytest.mark.parametrize("column", ["text", "json"])
def test_the_order_of_rows_is_nothing_but_each_row_is_something(connection: Connection, column: str) -> None:
    connection.execute(f"CREATE TABLE t (id int, v {column})")
    connection.execute("INSERT INTO t SELECT g, to_json(g)::text::" + column + " FROM generate_series(1, 500) g")
    before = taken(connection)
    connection.execute("CREATE TABLE public.other AS SELECT * FROM public.t ORDER BY random()")
    found = taken(connection)
    assert found["public.other"] == found["public.t"] == before["public.t"]
    for change in (
        "UPDATE public.t SET v = '7777' WHERE id = 250",
        "DELETE FROM public.t WHERE id = 250",
        "INSERT INTO public.t SELECT * FROM public.t WHERE id = 1",
        "UPDATE public.t SET v = NULL WHERE id = 3",
        "UPDATE public.t SET id = id + CASE id WHEN 10 THEN 1 WHEN 11 THEN -1 ELSE 0 END",
        "DELETE FROM public.t",
    ):
        connection.execute("BEGIN")
        connection.execute(change)
        assert compare(before, {"public.t": taken(connection)["public.t"]}), change
        connection.execute("ROLLBACK")


def test_null_empty_and_text_that_looks_like_them_differ(connection: Connection) -> None:
    for column in ("text", "json"):
        connection.execute(
            f"CREATE TABLE {column}_a (v text, j {column}); CREATE TABLE {column}_b (v text, j {column})"
        )
        connection.execute(f"INSERT INTO {column}_a VALUES (NULL, NULL); INSERT INTO {column}_b VALUES ('', NULL)")
    connection.execute("CREATE TABLE c (a text, b text, j json); INSERT INTO c VALUES ('x,y', 'z', NULL)")
    connection.execute("CREATE TABLE d (a text, b text, j json); INSERT INTO d VALUES ('x', 'y,z', NULL)")
    found = {key: entry["sum"] for key, entry in taken(connection).items()}
    assert found["public.text_a"] != found["public.text_b"]
    assert found["public.json_a"] != found["public.json_b"]
    assert found["public.c"] != found["public.d"]


def test_settings_of_the_session_change_nothing(postgresql: PostgresServer, connection: Connection) -> None:
    connection.execute(
        "CREATE TABLE t (j json, at timestamptz, span interval, f float8, b bytea, m money, c regclass, d date)"
    )
    connection.execute(
        "INSERT INTO t VALUES ('{}', now(), '1 mon -3 days 04:05:06', 0.1::float8 + 0.2, '\\xdeadbeef', 12.5,"
        " 't', current_date)"
    )
    expected = taken(connection)
    with postgresql.connect("fingerprints") as other:
        for setting in (
            "DateStyle = 'SQL, DMY'",
            "IntervalStyle = iso_8601",
            "extra_float_digits = -3",
            "bytea_output = escape",
            "TimeZone = 'Asia/Kathmandu'",
            "xmloption = document",
            "search_path = public",
            "quote_all_identifiers = on",
            "row_security = off",
            "statement_timeout = '60s'",
        ):
            other.execute(f"SET {setting}")
        assert taken(other) == expected


def test_partitions_inheritance_and_views_are_each_read_once(connection: Connection) -> None:
    connection.execute("CREATE TABLE parted (id int, v text) PARTITION BY RANGE (id)")
    connection.execute("CREATE TABLE low PARTITION OF parted FOR VALUES FROM (0) TO (10) PARTITION BY LIST (v)")
    connection.execute("CREATE TABLE low_a PARTITION OF low FOR VALUES IN ('a')")
    connection.execute("CREATE TABLE high PARTITION OF parted FOR VALUES FROM (10) TO (20)")
    connection.execute("INSERT INTO parted VALUES (1, 'a'), (11, 'b'), (12, 'c')")
    connection.execute("CREATE TABLE mother (a int); CREATE TABLE child (b int) INHERITS (mother)")
    connection.execute("INSERT INTO mother VALUES (1); INSERT INTO child VALUES (2, 3), (4, 5)")
    connection.execute("CREATE MATERIALIZED VIEW seen AS SELECT * FROM parted")
    connection.execute("CREATE MATERIALIZED VIEW unseen AS SELECT * FROM parted WITH NO DATA")
    connection.execute("CREATE VIEW plain AS SELECT * FROM parted")
    found = {key: entry["rows"] for key, entry in taken(connection).items()}
    assert found == {
        "public.low_a": 1, "public.high": 2, "public.mother": 1, "public.child": 2, "public.seen": 3,
    }  # fmt: skip


def test_what_no_backup_holds_is_named_with_its_reason(connection: Connection) -> None:
    connection.execute("CREATE UNLOGGED TABLE scribbled (a int); CREATE TEMPORARY TABLE mine (a int)")
    connection.execute("CREATE FOREIGN DATA WRAPPER nothing; CREATE SERVER nowhere FOREIGN DATA WRAPPER nothing")
    connection.execute("CREATE FOREIGN TABLE far (a int) SERVER nowhere")
    connection.execute("CREATE MATERIALIZED VIEW unseen AS SELECT 1 AS a WITH NO DATA")
    connection.execute("SELECT lo_create(0)")
    compared, not_compared = tables(connection)
    assert compared == []
    reasons = {entry["table"].split(".")[-1]: entry["reason"] for entry in not_compared}
    assert "recovery empties it" in reasons["scribbled"]
    assert "one session" in reasons["mine"]
    assert "another server" in reasons["far"]
    assert "never populated" in reasons["unseen"]
    assert "large objects" in reasons["pg_largeobject"]


@pytest.mark.parametrize(
    "name", ['with "quotes"', "with.dot", "t", "ünï¢ode " + "ß" * 26, "x" * 63, "select", "100%s %(a)s", "O'Brien\\n"]
)
def test_any_name_that_a_table_can_have_is_read(connection: Connection, name: str) -> None:
    table = Table(name, name, "record")
    connection.execute(f"CREATE SCHEMA {quoted(name)}")
    connection.execute(f"CREATE TABLE {table.sql} (t int)")
    connection.execute(f"INSERT INTO {table.sql} VALUES (1), (2)")
    found = taken(connection)
    assert list(found) == [table.key]
    assert found[table.key]["rows"] == 2


def test_many_small_tables_are_read_as_one_alone_is(connection: Connection) -> None:
    for number in range(120):
        kind = "json" if number % 7 == 0 else "int"
        connection.execute(f"CREATE TABLE t{number} (a {kind})")
        connection.execute(f"INSERT INTO t{number} SELECT g::text::{kind} FROM generate_series(1, {number}) g")
    chosen = tables(connection)[0]
    assert len(batches(chosen)) == 2
    alone = {key: entry for table in chosen for key, entry in fingerprint(connection, [table]).items()}
    assert fingerprint(connection, chosen) == alone
    assert {key: entry["rows"] for key, entry in alone.items()} == {f"public.t{n}": n for n in range(120)}


def test_of_many_tables_the_one_that_cannot_be_read_is_named(postgresql: PostgresServer, database: str) -> None:
    for number in range(5):
        postgresql.sql(f"CREATE TABLE t{number} AS SELECT 1 AS a", database)
    postgresql.sql("CREATE ROLE reader; GRANT SELECT ON t0, t1, t2, t4 TO reader", database)
    try:
        with postgresql.connect(database) as connection:
            connection.execute("SET ROLE reader")
            with pytest.raises(MaintenanceError) as caught:
                taken(connection)
            assert caught.value.where == "public.t3"
    finally:
        postgresql.sql("DROP OWNED BY reader; DROP ROLE reader", database)


def test_names_that_a_dot_could_confuse_have_keys_of_their_own() -> None:
    assert Table("a.b", "c", "record").key != Table("a", "b.c", "record").key
    assert Table("public", "student", "record").key == "public.student"


def test_generated_and_dropped_columns_count_as_what_they_show(connection: Connection) -> None:
    connection.execute("CREATE TABLE a (x int, twice int GENERATED ALWAYS AS (x * 2) STORED, gone text, y int)")
    connection.execute("INSERT INTO a (x, gone, y) SELECT g, 'gone', g FROM generate_series(1, 9) g")
    connection.execute("ALTER TABLE a DROP COLUMN gone; ALTER TABLE a ADD COLUMN later int DEFAULT 7")
    connection.execute("CREATE TABLE b AS SELECT * FROM a")
    found = taken(connection)
    assert found["public.a"] == found["public.b"]


def test_rows_that_a_policy_hides_are_an_error_and_not_just_missing(postgresql: PostgresServer, database: str) -> None:
    postgresql.sql("CREATE TABLE hidden AS SELECT 1 AS a", database)
    postgresql.sql("ALTER TABLE hidden ENABLE ROW LEVEL SECURITY", database)
    postgresql.sql("CREATE ROLE reader; GRANT pg_read_all_data TO reader", database)
    try:
        with postgresql.connect(database) as connection:
            connection.execute("SET ROLE reader")
            with pytest.raises(MaintenanceError) as caught:
                taken(connection)
            assert "public.hidden" in str(caught.value)
            assert "row-level security" in str(caught.value)
    finally:
        postgresql.sql("DROP OWNED BY reader; DROP ROLE reader", database)


def test_held_tables_cannot_be_emptied_behind_a_snapshot(postgresql: PostgresServer, database: str) -> None:
    postgresql.sql("CREATE TABLE t AS SELECT g FROM generate_series(1, 5) g", database)
    postgresql.sql("CREATE MATERIALIZED VIEW v AS SELECT * FROM t", database)
    with postgresql.connect(database) as reader, postgresql.connect(database) as writer:
        compared, _not_compared = tables(reader)
        reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        hold(reader, compared)
        writer.execute("SET lock_timeout = '100ms'")
        writer.execute("INSERT INTO t VALUES (6)")
        for statement in ("TRUNCATE t", "REFRESH MATERIALIZED VIEW v", "DROP TABLE t CASCADE"):
            with pytest.raises(Exception, match="lock timeout"):
                writer.execute(statement)
        found = fingerprint(reader, compared)
        assert {key: entry["rows"] for key, entry in found.items()} == {"public.t": 5, "public.v": 5}


def test_an_older_record_is_compared_by_its_own_method(connection: Connection) -> None:
    connection.execute("CREATE TABLE t AS SELECT 1 AS a")
    recorded = fingerprint(connection, [Table("public", "t", "text")])
    assert taken(connection)["public.t"]["method"] == "record"
    assert compare(recorded, taken(connection)) == ["public.t was recorded by method text but read by method record"]
    assert compare(recorded, fingerprint(connection, with_methods_of(tables(connection)[0], recorded))) == []


def test_names_in_an_old_encoding_are_read(postgresql: PostgresServer) -> None:
    postgresql.sql("CREATE DATABASE old TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'")
    try:
        with postgresql.connect("old") as connection:
            connection.execute('CREATE TABLE "Prüfung" (a text); INSERT INTO "Prüfung" VALUES (\'ä\')')
            assert taken(connection)["public.Prüfung"]["rows"] == 1
    finally:
        postgresql.sql("DROP DATABASE old")
