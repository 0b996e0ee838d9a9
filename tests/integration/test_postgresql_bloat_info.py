"""The module as Ansible runs it: what it returns, and that it changes nothing."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.bloat import PROGRAMS, quiet_server, release
from support.modules import COLLECTIONS, run_module
from support.ports import free_port
from support.postgresql import PostgresServer


@pytest.fixture(scope="module", params=PROGRAMS, ids=release)
def server(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    with quiet_server(request.param) as running:
        running.sql("CREATE DATABASE bare")
        running.sql("CREATE DATABASE closed")
        running.sql("ALTER DATABASE closed ALLOW_CONNECTIONS false")
        for dbname in ("postgres", "bare"):
            running.sql(
                "CREATE SCHEMA sales; CREATE TABLE sales.item (id int PRIMARY KEY, note text, words tsvector);"
                "INSERT INTO sales.item"
                " SELECT g, md5(g::text), to_tsvector(md5(g::text)) FROM generate_series(1, 20000) g;"
                "CREATE INDEX note_idx ON sales.item (note); CREATE INDEX words_idx ON sales.item USING gin (words);"
                "CREATE TABLE small AS SELECT 1 AS id; DELETE FROM sales.item WHERE id % 4 <> 0",
                dbname,
            )
            running.sql("VACUUM ANALYZE sales.item", dbname)
        yield running


def bloat_info(server: PostgresServer, tmp_path: Path, *, check: bool = False, **options: Any) -> dict[str, Any]:
    wanted = {"state_dir": str(tmp_path), "min_size": "64KiB", **options}
    return run_module("postgresql_bloat_info", {**server.login(), **wanted}, check=check)


def in_database(shown: dict[str, Any], name: str) -> dict[str, Any]:
    return next(database for database in shown["databases"] if database["name"] == name)


def by_name(listed: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in listed}


def contents(server: PostgresServer) -> list[Any]:
    return [server.sql("SELECT oid, extname FROM pg_extension ORDER BY 1", dbname) for dbname in ("postgres", "bare")]


def test_tables_and_indexes_of_all_databases_are_measured_and_nothing_changes(
    server: PostgresServer, tmp_path: Path
) -> None:
    before = contents(server)
    shown = bloat_info(server, tmp_path)
    assert (shown["failed"], shown["changed"], shown["changes"], shown["remarks"]) == (False, False, [], [])
    assert [database["name"] for database in shown["databases"]] == ["bare", "postgres", "template1"]
    assert {"name": "closed", "reason": "it allows no connections"} in shown["skipped_databases"]
    measured = in_database(shown, "postgres")
    note = by_name(measured["indexes"])["note_idx"]
    assert (note["schema"], note["table"], note["method"], note["confidence"]) == (
        "sales", "item", "pgstatindex", "high"
    )  # fmt: skip
    assert note["bloat_ratio"] == pytest.approx(0.75, abs=0.1)
    assert note["wasted_bytes"] + note["predicted_bytes"] == note["size_bytes"]
    assert by_name(measured["indexes"])["words_idx"]["reason"].startswith("seen for the first time")
    item = by_name(measured["tables"])["item"]
    assert (item["kind"], item["method"]) == ("table", "pgstattuple_approx")
    assert item["bloat_ratio"] == pytest.approx(0.75, abs=0.05)
    assert by_name(measured["tables"])["small"]["method"] == "small"
    assert contents(server) == before


def test_without_the_extension_it_says_what_is_missing_and_claims_little(
    server: PostgresServer, tmp_path: Path
) -> None:
    bare = in_database(bloat_info(server, tmp_path), "bare")
    key = by_name(bare["indexes"])["item_pkey"]
    assert (key["method"], key["confidence"]) == ("estimate", "low")
    assert key["bloat_ratio"] == pytest.approx(0.75, abs=0.05)
    note = by_name(bare["indexes"])["note_idx"]
    assert (note["bloat_ratio"], note["confidence"]) == (None, "none")
    for one in (key, note, by_name(bare["tables"])["item"]):
        assert "CREATE EXTENSION pgstattuple in the database bare" in one["reason"]


def test_most_to_win_comes_first_and_what_is_left_out_is_counted(server: PostgresServer, tmp_path: Path) -> None:
    complete = in_database(bloat_info(server, tmp_path, limit=0), "postgres")
    wasted = [index["wasted_bytes"] for index in complete["indexes"]]
    assert wasted == sorted(wasted, reverse=True)
    assert complete["left_out"] == {"indexes": 0, "tables": 0}
    first = in_database(bloat_info(server, tmp_path, limit=1), "postgres")
    assert [index["name"] for index in first["indexes"]] == [complete["indexes"][0]["name"]]
    assert first["left_out"]["indexes"] == len(complete["indexes"]) - 1
    assert first["totals"] == complete["totals"]
    assert first["totals"]["wasted_index_bytes"] == sum(wasted)


def test_scope_is_what_the_options_say(server: PostgresServer, tmp_path: Path) -> None:
    shown = bloat_info(server, tmp_path, databases=["postgres"], tables=["sales.*"], measure_tables=False)
    assert [database["name"] for database in shown["databases"]] == ["postgres"]
    measured = in_database(shown, "postgres")
    assert measured["tables"] == []
    assert {index["table"] for index in measured["indexes"] if not index["is_toast"]} == {"item"}
    catalogs = bloat_info(server, tmp_path, catalogs=True, limit=0)
    holders = [
        database["name"]
        for database in catalogs["databases"]
        for index in database["indexes"]
        if index["name"] == "pg_database_oid_index"
    ]
    assert len(holders) == 1, "an index that all databases share is told once"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"databases": ["nowhere*"]}, "something that matches 'nowhere*'"),
        ({"min_size": "much"}, "'much' is not a size"),
        ({"measure_timeout": "soon"}, "'soon' is not a duration"),
        ({"sample_pages": 1}, "2 or more"),
        ({"limit": -1}, "0 or more"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    server: PostgresServer, tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    shown = bloat_info(server, tmp_path, **options)
    assert shown["failed"]
    assert words in shown["msg"]


def test_a_server_that_is_down_is_told_with_what_to_do(tmp_path: Path) -> None:
    shown = run_module(
        "postgresql_bloat_info",
        {"login_unix_socket": str(tmp_path), "login_port": free_port(), "state_dir": str(tmp_path)},
    )
    assert shown["failed"]
    assert "Start the server" in shown["msg"]


def test_a_database_that_is_lost_on_the_way_is_named_and_the_others_measured(
    server: PostgresServer, tmp_path: Path
) -> None:
    server.sql("CREATE DATABASE half")
    server.sql("CREATE ROLE visitor LOGIN CONNECTION LIMIT 10; REVOKE CONNECT ON DATABASE half FROM PUBLIC")
    try:
        shown = bloat_info(server, tmp_path, login_user="visitor")
        assert "half" in [database["name"] for database in shown["skipped_databases"]]
        assert "postgres" in [database["name"] for database in shown["databases"]]
        item = by_name(in_database(shown, "postgres")["tables"])["item"]
        assert "GRANT pg_stat_scan_tables TO visitor" in item["reason"]
    finally:
        server.sql("DROP ROLE visitor")
        server.sql("DROP DATABASE half")


def test_extensions_are_installed_only_when_that_is_asked_for(server: PostgresServer, tmp_path: Path) -> None:
    server.sql("CREATE DATABASE wanting")
    try:
        announced = bloat_info(server, tmp_path, check=True, databases=["wanting"], create_extensions=True)
        assert announced["changed"]
        assert [change["after"] for change in announced["changes"]] == ["would be installed"] * 2
        assert server.sql("SELECT count(*) FROM pg_extension WHERE extname <> 'plpgsql'", "wanting") == [(0,)]
        done = bloat_info(server, tmp_path, databases=["wanting"], create_extensions=True)
        assert [change["name"] for change in done["changes"]] == [
            "pgstattuple in the database wanting",
            "pageinspect in the database wanting",
        ]
        again = bloat_info(server, tmp_path, databases=["wanting"], create_extensions=True)
        assert (again["changed"], again["changes"]) == (False, [])
    finally:
        server.sql("DROP DATABASE wanting WITH (FORCE)")


def test_measurements_are_kept_in_a_directory_that_is_there_and_never_in_check_mode(
    server: PostgresServer, tmp_path: Path
) -> None:
    bloat_info(server, tmp_path, check=True)
    assert list(tmp_path.iterdir()) == []
    bloat_info(server, tmp_path, state_dir=str(tmp_path / "missing"))
    assert list(tmp_path.iterdir()) == []
    bloat_info(server, tmp_path)
    files = list((tmp_path / "bloat").iterdir())
    assert [file.suffix for file in files] == [".json"]
    files[0].write_text("{")
    shown = bloat_info(server, tmp_path)
    assert "is not used" in shown["remarks"][0]
    assert not shown["failed"]
    assert bloat_info(server, tmp_path)["remarks"] == []


def test_what_is_documented_is_what_is_returned(server: PostgresServer, tmp_path: Path) -> None:
    text = (COLLECTIONS.parent / "plugins/modules/postgresql_bloat_info.py").read_text()
    documented = yaml.safe_load(text.split('RETURN = r"""', 1)[1].split('"""', 1)[0])
    shown = bloat_info(server, tmp_path)
    assert set(documented) == set(shown) - {"failed", "changed", "invocation"}
    database = in_database(shown, "postgres")
    contains = documented["databases"]["contains"]
    assert set(contains) == set(database)
    assert set(contains["indexes"]["contains"]) <= set(database["indexes"][0])
    assert set(contains["left_out"]["sample"]) == set(database["left_out"])
    assert set(contains["totals"]["sample"]) == set(database["totals"])
    json.dumps(shown, allow_nan=False)


def test_a_standby_is_measured_too_without_trusting_counters_that_it_does_not_have(
    server: PostgresServer, tmp_path: Path
) -> None:
    standby = PostgresServer(server.directory / "standby", server.bin_dir, {"shared_buffers": "16MB"})
    standby.directory.mkdir()
    server.sql("CREATE UNLOGGED TABLE fleeting (id int PRIMARY KEY)")
    if Path("/proc/self").stat().st_uid == 0:
        subprocess.run(["chown", "nobody", str(standby.directory)], check=True)
    where = ["-h", str(server.socket_dir), "-p", str(server.port), "-U", "postgres"]
    standby.program("pg_basebackup", "-D", str(standby.data), "-R", "-c", "fast", *where)
    with (standby.data / "postgresql.conf").open("a") as stream:
        stream.write(f"port = {standby.port}\nunix_socket_directories = '{standby.directory}'\n")
    standby.start()
    try:
        for _time in range(2):
            shown = run_module(
                "postgresql_bloat_info", {**standby.login(), "state_dir": str(tmp_path), "min_size": "0"}
            )
            measured = in_database(shown, "postgres")
            assert by_name(measured["indexes"])["note_idx"]["bloat_ratio"] == pytest.approx(0.75, abs=0.1)
            assert "standby" in by_name(measured["indexes"])["fleeting_pkey"]["reason"]
            assert "standby" in by_name(measured["tables"])["fleeting"]["reason"]
        kept = [json.loads(file.read_text()) for file in (tmp_path / "bloat").iterdir()]
        assert [document["measured"] for document in kept] == [{}]
    finally:
        standby.stop()
        server.sql("DROP TABLE fleeting")
