"""The module postgresql_reindex on a real server: what it rebuilds, proves, leaves alone, and cleans up."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.database.session import claim, open_session
from support.modules import checks_by_name, module_process
from support.postgresql import postgres_server
from support.reindex import BLOATED, GATED, KINDS, LONG_NAME, ReindexSite, leave_leftover, rebuilt, statuses

SETTINGS = {
    "shared_preload_libraries": "pg_stat_statements",
    "max_prepared_transactions": "4",
    "autovacuum": "off",
    "max_wal_size": "1GB",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReindexSite]:
    with postgres_server(SETTINGS) as server:
        server.sql("CREATE DATABASE shop")
        site = ReindexSite(server, tmp_path_factory.mktemp("state"))
        site.make("CREATE EXTENSION pg_stat_statements")
        site.make(GATED)
        yield site


@pytest.fixture
def bloated(site: ReindexSite) -> ReindexSite:
    """A small table whose index is bloated again for each test."""
    site.make(
        """
        CREATE EXTENSION IF NOT EXISTS pgstattuple;
        CREATE EXTENSION IF NOT EXISTS amcheck;
        DROP TABLE IF EXISTS course;
        CREATE TABLE course (id int PRIMARY KEY, name text);
        INSERT INTO course SELECT g, md5(g::text) FROM generate_series(1, 20000) g;
        CREATE INDEX course_name ON course (name);
        DELETE FROM course WHERE id % 10 <> 0;
        VACUUM (ANALYZE) course
        """
    )
    return site


def only(**others: Any) -> dict[str, Any]:
    return {"tables": ["public.course"], **others}


def test_bloated_indexes_of_every_kind_are_rebuilt_and_proven_and_the_next_run_writes_nothing(
    tmp_path: Path,
) -> None:
    with postgres_server(SETTINGS) as server:
        server.sql("CREATE DATABASE shop")
        site = ReindexSite(server, tmp_path / "state")
        site.make("CREATE EXTENSION pg_stat_statements")
        site.make(KINDS)
        toast = server.sql(
            "SELECT x.indexrelid::regclass::text FROM pg_class c JOIN pg_index x ON x.indrelid = c.reltoastrelid "
            "WHERE c.relname = 'document'",
            "shop",
        )[0][0]
        expected = sorted([*BLOATED, f"shop.{toast}"])
        before = site.indexes()

        plan = site.run(check=True, create_extensions=False)
        assert site.indexes() == before
        site.make("CREATE EXTENSION pgstattuple")
        plan = site.run(check=True)
        assert rebuilt(plan) == expected
        assert all("would be rebuilt" in change["after"] for change in plan["changes"] if change["kind"] == "index")
        evidence = checks_by_name(plan)["bloated indexes"]["evidence"]
        assert all(each["predicted_seconds"] > 0 and each["gain_bytes"] > 0 for each in evidence["rebuild"])
        assert site.indexes() == before, "check mode touches nothing"

        shown = site.run()
        assert not shown["failed"], shown["msg"]
        assert rebuilt(shown) == expected
        assert set(statuses(shown).values()) == {"passed"}
        checks = checks_by_name(shown)
        for topic in ("identity of rebuilt indexes", "size of rebuilt indexes", "structure of rebuilt indexes"):
            assert sorted(checks[topic]["evidence"]) == expected, topic
        assert list(checks["statistics of rebuilt expression indexes"]["evidence"]) == ["shop.public.student_lower"]
        left = {each["index"]: each["reason"] for each in checks["bloated indexes"]["evidence"]["left"]}
        assert "exclusion constraint" in left["shop.public.booking_slot_excl"]
        after = site.indexes()
        assert sorted(before) == sorted(after), "no index is lost, and none left over"
        for name in before:
            is_new = f"shop.{name}".replace(f"Odd Schema.{LONG_NAME}", f'"Odd Schema"."{LONG_NAME}"') in expected
            assert (before[name][0] != after[name][0]) is is_new, name
            assert before[name][1:] == after[name][1:], name
        metrics = {name: metric["value"] for name, metric in shown["metrics"].items()}
        assert metrics["rebuilt_indexes"] == len(expected)
        assert metrics["cancelled_rebuilds"] == 0
        assert metrics["bytes_won"] > 64 * 1024 * len(expected)
        assert metrics["wal_bytes"] > 0
        assert metrics["rebuild_seconds"] > 0

        position = site.wal_position()
        again = site.run()
        assert not again["changed"]
        assert not again["failed"]
        assert site.wal_position() == position
        assert again["metrics"]["rebuilt_indexes"]["value"] == 0


def test_upserts_keep_their_unique_index_from_being_rebuilt_and_no_other(bloated: ReindexSite) -> None:
    bloated.make("DROP TABLE IF EXISTS grade; CREATE TABLE grade AS SELECT * FROM course WITH NO DATA")
    bloated.make("ALTER TABLE grade ADD PRIMARY KEY (id)")
    bloated.make("INSERT INTO grade SELECT g, md5(g::text) FROM generate_series(1, 20000) g")
    bloated.make("DELETE FROM grade WHERE id % 10 <> 0; VACUUM (ANALYZE) grade")
    bloated.make("INSERT INTO grade VALUES (10, 'x') ON CONFLICT (id) DO NOTHING")
    shown = bloated.run(tables=["public.course", "public.grade"])
    assert rebuilt(shown) == ["shop.public.course_name", "shop.public.course_pkey"]
    left = {e["index"]: e["reason"] for e in checks_by_name(shown)["bloated indexes"]["evidence"]["left"]}
    assert "upserts (INSERT … ON CONFLICT) into grade were seen" in left["shop.public.grade_pkey"]
    assert rebuilt(bloated.run(tables=["public.grade"], unique_indexes="never")) == []
    assert rebuilt(bloated.run(tables=["public.grade"], unique_indexes="always")) == ["shop.public.grade_pkey"]


def test_upserts_are_found_in_the_statistics_of_another_database_and_unknown_where_none_has_them(
    bloated: ReindexSite,
) -> None:
    site = bloated
    site.make("INSERT INTO course VALUES (10, 'x') ON CONFLICT (id) DO UPDATE SET name = 'y'")
    site.make("DROP EXTENSION pg_stat_statements")

    def why_left() -> str:
        shown = site.run(check=True, **only())
        assert rebuilt(shown) == ["shop.public.course_name"]
        check = checks_by_name(shown)["bloated indexes"]["evidence"]["left"]
        return str(check[0]["reason"])

    assert "not installed in any of the databases" in why_left()
    site.make("CREATE EXTENSION pg_stat_statements", "postgres")
    try:
        assert "into course were seen" in why_left()
    finally:
        site.make("DROP EXTENSION pg_stat_statements", "postgres")
        site.make("CREATE EXTENSION pg_stat_statements")
        site.make("SELECT pg_stat_statements_reset()")


def test_an_old_snapshot_is_named_and_nothing_is_begun_under_it(bloated: ReindexSite) -> None:
    before = bloated.indexes()
    with bloated.old_snapshot(seconds=2.2) as session:
        pid = session.info.backend_pid
        shown = bloated.run(**only())
    assert not shown["changed"]
    check = checks_by_name(shown)["bloat of shop.public.course_name"]
    assert check["status"] == "warned"
    assert f"the session {pid} (old report, role postgres, idle in transaction" in check["observed"]
    assert bloated.indexes() == before


def test_what_an_old_snapshot_put_off_is_rebuilt_once_it_has_ended(bloated: ReindexSite) -> None:
    with bloated.old_snapshot(seconds=2.2):
        process = module_process("postgresql_reindex", bloated.options(**only(retry_for="5m")))
        # The last of the questions that are asked before a rebuild.
        bloated.until(
            "EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'wellkept reindex' AND query LIKE "
            "'%temp_tablespaces%' AND state = 'idle')"
        )
    shown = json.loads(process.communicate(timeout=300)[0])
    assert rebuilt(shown) == ["shop.public.course_name", "shop.public.course_pkey"]


def test_a_prepared_transaction_that_locks_the_table_is_named(bloated: ReindexSite) -> None:
    bloated.make("BEGIN; INSERT INTO course VALUES (99999, 'x'); PREPARE TRANSACTION 'forgotten'")
    try:
        shown = bloated.run(**only())
    finally:
        bloated.make("ROLLBACK PREPARED 'forgotten'")
    assert not shown["changed"]
    observed = checks_by_name(shown)["bloat of shop.public.course_name"]["observed"]
    assert "the prepared transaction forgotten has its table locked" in observed


def test_too_little_room_is_told_with_its_place_before_anything_is_written(bloated: ReindexSite) -> None:
    shown = bloated.run(**only(min_free_bytes="9000TiB"))
    assert not shown["changed"]
    observed = checks_by_name(shown)["bloat of shop.public.course_name"]["observed"]
    assert f"{bloated.server.data}" in observed
    assert "9000.0 TiB are to remain" in observed


def test_what_cannot_end_within_the_window_is_left_with_that_reason(bloated: ReindexSite) -> None:
    shown = bloated.run(**only(time_budget="0.01"))
    assert not shown["changed"]
    assert "of the window will be left" in checks_by_name(shown)["bloat of shop.public.course_name"]["observed"]


def test_the_end_of_the_window_ends_a_rebuild_and_nothing_is_left(site: ReindexSite) -> None:
    before = site.indexes()
    with site.closed_gate():
        for budget in ("5s", "30s", "2m"):  # on a slow machine a window may be over before anything is begun
            shown = site.run(tables=["public.gated"], time_budget=budget, retry_for="5m")
            if shown["metrics"]["cancelled_rebuilds"]["value"]:
                break
    assert "the time that was left for it" in checks_by_name(shown)["bloat of shop.public.gated_id"]["observed"]
    assert shown["metrics"]["cancelled_rebuilds"]["value"] == 1
    assert shown["metrics"]["rebuilt_indexes"]["value"] == 0
    assert site.indexes() == before


def test_two_rows_with_one_key_that_a_rebuild_finds_are_told_as_damage(bloated: ReindexSite) -> None:
    site = bloated
    blind = "UPDATE pg_index SET indisready = {}, indisvalid = {} WHERE indexrelid = 'course_pkey'::regclass"
    site.make(blind.format("false", "false"))
    site.make("INSERT INTO course VALUES (10, 'twice')")
    site.make(blind.format("true", "true"))
    before = site.indexes()
    shown = site.run(**only())
    assert shown["failed"]
    check = checks_by_name(shown)["soundness of shop.public.course_pkey"]
    assert check["status"] == "failed"
    assert "could not create unique index" in check["observed"]
    assert rebuilt(shown) == ["shop.public.course_name"]
    assert {name: facts for name, facts in site.indexes().items() if name != "public.course_name"} == {
        name: facts for name, facts in before.items() if name != "public.course_name"
    }


def test_somebody_who_waits_on_a_rebuild_is_let_through_and_the_rebuild_is_tried_again(site: ReindexSite) -> None:
    before = site.indexes()
    with site.closed_gate() as open_gate:
        options = site.options(tables=["public.gated"], retry_for="5m", max_block="0.3s", amcheck=False)
        process = module_process("postgresql_reindex", options)
        site.until_rebuild_waits_at_the_gate()
        # Would wait until the gate opens, if the rebuild were not cancelled.
        site.make("ALTER TABLE gated ALTER name SET STATISTICS 50")
        open_gate()
    shown = json.loads(process.communicate(timeout=300)[0])
    assert not shown.get("failed"), shown.get("msg")
    assert rebuilt(shown) == ["shop.public.gated_id"]
    assert shown["metrics"]["cancelled_rebuilds"]["value"] >= 1
    assert shown["metrics"]["longest_wait_seconds"]["value"] >= 0.3
    assert {change["name"] for change in shown["changes"] if change["kind"] == "leftover index"} <= {
        "shop.public.gated_id_ccnew"
    }
    assert site.invalid() == []
    assert site.indexes()["public.gated_id"][1:] == before["public.gated_id"][1:]


def test_a_standstill_of_the_machine_costs_no_rebuild(site: ReindexSite) -> None:
    """Afterwards the last look is old, and yet nobody is blind."""
    site.make("DROP TABLE gated; DROP FUNCTION through_the_gate")
    site.make(GATED)
    with site.closed_gate() as open_gate:
        options = site.options(tables=["public.gated"], max_block="3s", amcheck=False)
        process = module_process("postgresql_reindex", options)
        site.until_rebuild_waits_at_the_gate()
        process.send_signal(signal.SIGSTOP)
        time.sleep(4)
        [(now,)] = site.server.sql("SELECT clock_timestamp()::text")
        process.send_signal(signal.SIGCONT)
        site.until(
            "EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'wellkept reindex' "
            f"AND query LIKE '%pg_blocking_pids%' AND query_start > timestamptz '{now}')"
        )
        open_gate()
    shown = json.loads(process.communicate(timeout=300)[0])
    assert rebuilt(shown) == ["shop.public.gated_id"]
    assert shown["metrics"]["cancelled_rebuilds"]["value"] == 0


def test_a_rebuild_that_was_stopped_when_the_new_index_was_in_place_counts_and_is_proven(site: ReindexSite) -> None:
    site.make("DROP TABLE gated; DROP FUNCTION through_the_gate")
    site.make(GATED)
    before = site.indexes()
    with site.server.connect("shop") as reader, site.server.connect("shop") as altering:
        with site.closed_gate():
            options = site.options(tables=["public.gated"], max_block="0.3s", amcheck=False)
            process = module_process("postgresql_reindex", options)
            site.until_rebuild_waits_at_the_gate()
            reader.execute("BEGIN")
            reader.execute("LOCK TABLE gated IN ACCESS SHARE MODE")
        site.until("EXISTS (SELECT FROM pg_stat_progress_create_index WHERE phase LIKE 'waiting for readers%')")
        alter = threading.Thread(target=altering.execute, args=["ALTER TABLE gated ALTER name SET STATISTICS 60"])
        alter.start()
        site.until(
            "NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'wellkept reindex' "
            "AND query LIKE 'REINDEX%' AND state = 'active')"
        )
        reader.execute("ROLLBACK")
        alter.join()
    shown = json.loads(process.communicate(timeout=300)[0])
    assert rebuilt(shown) == ["shop.public.gated_id"]
    assert shown["metrics"]["rebuilt_indexes"]["value"] == 1
    assert shown["metrics"]["cancelled_rebuilds"]["value"] == 1
    assert "shop.public.gated_id" in checks_by_name(shown)["identity of rebuilt indexes"]["evidence"]
    assert site.invalid() == []
    after = site.indexes()
    assert after["public.gated_id"][0] != before["public.gated_id"][0]
    assert after["public.gated_id"][1:] == before["public.gated_id"][1:]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_ends_the_rebuild_on_the_server_and_leaves_nothing(
    site: ReindexSite, number: signal.Signals
) -> None:
    site.make("DROP TABLE gated; DROP FUNCTION through_the_gate")
    site.make(GATED)
    before = site.indexes()
    with site.closed_gate():
        process = module_process("postgresql_reindex", site.options(tables=["public.gated"]))
        site.until_rebuild_waits_at_the_gate()
        process.send_signal(number)
        shown = json.loads(process.communicate(timeout=60)[0])
        assert shown["failed"]
        assert f"stopped by {number.name}" in shown["msg"]
        site.until("NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'wellkept reindex')")
    assert site.indexes() == before


@pytest.mark.long
def test_told_to_stop_it_ends_although_the_server_does_not_answer(site: ReindexSite) -> None:
    site.make("DROP TABLE gated; DROP FUNCTION through_the_gate")
    site.make(GATED)
    frozen: list[int] = []
    with site.closed_gate():
        process = module_process("postgresql_reindex", site.options(tables=["public.gated"]))
        site.until_rebuild_waits_at_the_gate()
        rows = site.server.sql("SELECT pid FROM pg_stat_activity WHERE application_name = 'wellkept reindex'")
        try:
            for (pid,) in rows:
                os.kill(pid, signal.SIGSTOP)
                frozen.append(pid)
            process.send_signal(signal.SIGTERM)
            shown = json.loads(process.communicate(timeout=300)[0])
        finally:
            for pid in frozen:
                os.kill(pid, signal.SIGCONT)
        assert shown["failed"]
        assert "stopped by SIGTERM" in shown["msg"]
    site.until("NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'wellkept reindex')")
    assert rebuilt(site.run(tables=["public.gated"], amcheck=False)) == ["shop.public.gated_id"]
    assert site.invalid() == []


def test_two_runs_at_once_are_told_of_each_other(bloated: ReindexSite, tmp_path: Path) -> None:
    login = {"login_host": "", "login_db": "postgres", "login_password": "", **bloated.server.login()}
    with open_session(login, "shop", purpose="reindex") as other:
        claim(other, "reindex")
        # Another state directory, as on another host: the lock file does not tell.
        shown = bloated.run(**only(state_dir=str(tmp_path)))
        assert shown["failed"]
        assert f"held by process {other.info.backend_pid}" in shown["msg"]
        assert "wellkept reindex" in shown["msg"]
    assert not shown["changed"]


def test_true_leftovers_are_dropped_and_what_only_looks_like_one_is_not(bloated: ReindexSite) -> None:
    site = bloated
    site.make(f'DROP TABLE IF EXISTS files; CREATE TABLE files (id int, "{LONG_NAME}" text)')
    site.make("INSERT INTO files SELECT g, repeat(md5(g::text), 200) FROM generate_series(1, 200) g")
    site.make(f'CREATE INDEX "{LONG_NAME}" ON files (id); CREATE INDEX files_id_ccnew ON files (id)')
    toast = site.server.sql(
        "SELECT x.indexrelid::regclass::text FROM pg_class c JOIN pg_index x ON x.indrelid = c.reltoastrelid "
        "WHERE c.relname = 'files'",
        "shop",
    )[0][0]
    for name in (f'"{LONG_NAME}"', f'"{LONG_NAME}"', toast, "course_pkey"):
        leave_leftover(site, name)
    assert len(site.invalid()) == 4
    with site.server.connect("shop") as connection:
        connection.execute("INSERT INTO files VALUES (1, 'twice')")
        with pytest.raises(Exception, match="could not create unique index"):
            connection.execute("CREATE UNIQUE INDEX CONCURRENTLY mine_ccnew ON files (id)")
    plan = site.run(check=True)
    assert len([change for change in plan["changes"] if change["kind"] == "leftover index"]) == 4
    assert len(site.invalid()) == 5
    valid = [name for name, facts in site.indexes().items() if facts[1]]

    shown = site.run(min_gain="1GB")
    assert site.invalid() == ["mine_ccnew"]
    dropped = sorted(change["name"] for change in shown["changes"])
    assert "shop.public.course_pkey_ccnew" in dropped
    assert f"shop.{toast}_ccnew" in dropped
    assert len([name for name in dropped if "Ümlaut" in name]) == 2
    assert sorted(name for name, facts in site.indexes().items() if facts[1]) == sorted(valid)
    found = statuses(shown)
    assert found["leftovers of interrupted rebuilds"] == "passed"
    assert found["invalid index shop.public.mine_ccnew"] == "warned"
    site.make("DROP TABLE files")


def test_a_leftover_on_a_locked_table_is_not_waited_for_and_its_holder_is_named(bloated: ReindexSite) -> None:
    site = bloated
    leave_leftover(site, "course_pkey")
    site.make("BEGIN; INSERT INTO course VALUES (99999, 'x'); PREPARE TRANSACTION 'forgotten'")
    try:
        shown = site.run(**only())
        assert shown["failed"]
        observed = checks_by_name(shown)["leftovers of interrupted rebuilds"]["observed"]
        assert observed == (
            "still there: shop.public.course_pkey_ccnew (the prepared transaction forgotten has its table locked)"
        )
        assert shown["metrics"]["rebuild_seconds"]["value"] == 0, "nothing was tried in vain"
    finally:
        site.make("ROLLBACK PREPARED 'forgotten'")
    site.run(**only(min_gain="1GB"))
    assert site.invalid() == []


def test_the_owner_and_who_may_maintain_rebuild_and_others_are_told_which_grant_they_lack(
    bloated: ReindexSite,
) -> None:
    site = bloated
    for role in ("own", "maintain", "nothing"):
        site.make(
            f"DROP ROLE IF EXISTS {role}; CREATE ROLE {role} LOGIN IN ROLE pg_read_all_stats, pg_stat_scan_tables"
        )
    site.make("GRANT pg_maintain TO maintain; ALTER TABLE course OWNER TO own; CREATE INDEX course_two ON course (id)")
    site.make("GRANT EXECUTE ON FUNCTION bt_index_check(regclass, boolean) TO own, maintain")
    try:
        shown = site.run(**only(login_user="nothing", unique_indexes="always"))
        assert not shown["changed"]
        observed = checks_by_name(shown)["bloat of shop.public.course_name"]["observed"]
        assert "GRANT pg_maintain TO nothing, or GRANT MAINTAIN ON public.course TO nothing" in observed
        shown = site.run(**only(login_user="maintain", exclude_indexes=["*.course_pkey"]))
        assert rebuilt(shown) == ["shop.public.course_name"]
        shown = site.run(**only(login_user="own", unique_indexes="always"))
        assert rebuilt(shown) == ["shop.public.course_pkey"]
        found = statuses(shown)
        assert found["structure of rebuilt indexes"] == found["size of rebuilt indexes"] == "passed"
        # The server's directory is not theirs to see.
        assert found["surroundings of rebuilds"] == "unknown"
    finally:
        site.make("DROP TABLE course; REVOKE ALL ON FUNCTION bt_index_check(regclass, boolean) FROM own, maintain")
        site.make("DROP ROLE own; DROP ROLE maintain; DROP ROLE nothing")


def test_without_amcheck_the_structure_is_unknown_and_never_passed(bloated: ReindexSite) -> None:
    bloated.make("DROP EXTENSION amcheck")
    shown = bloated.run(**only(create_extensions=False))
    found = statuses(shown)
    assert found["structure of rebuilt indexes: shop.public.course_name"] == "unknown"
    assert "structure of rebuilt indexes" not in found


def test_without_pgstattuple_bloat_is_only_estimated_and_rebuilt_only_when_told(bloated: ReindexSite) -> None:
    bloated.make("DROP EXTENSION pgstattuple")
    options = only(create_extensions=False, amcheck=False)
    shown = bloated.run(**options)
    assert not shown["changed"]
    left = {e["index"]: e for e in checks_by_name(shown)["bloated indexes"]["evidence"]["left"]}
    assert "low confidence only" in left["shop.public.course_pkey"]["reason"]
    assert "shop.public.course_pkey" in rebuilt(bloated.run(**options, min_confidence="low"))


def test_an_index_that_does_not_get_smaller_is_said_and_not_rebuilt_again(bloated: ReindexSite) -> None:
    site = bloated
    # By the statistics the keys are short, so that the index seems twice as large as need be.
    site.make("TRUNCATE course; INSERT INTO course SELECT g, g::text FROM generate_series(1, 20000) g; ANALYZE course")
    site.make(
        "UPDATE course SET name = md5(name); DROP INDEX course_name; CREATE UNIQUE INDEX course_name ON course (name)"
    )
    site.make("REINDEX TABLE course; DROP EXTENSION pgstattuple")
    options = only(create_extensions=False, amcheck=False, min_confidence="low", unique_indexes="always")
    shown = site.run(**options)
    assert "shop.public.course_name" in rebuilt(shown)
    check = checks_by_name(shown)["size of rebuilt indexes: shop.public.course_name"]
    assert check["status"] == "warned"
    assert "its true size from now on" in check["advice"]
    again = site.run(**options)
    assert not again["changed"]
    assert set(statuses(again).values()) == {"passed"}


def test_equal_keys_in_a_unique_index_are_not_taken_for_bloat(bloated: ReindexSite) -> None:
    site = bloated
    site.make("TRUNCATE course; ALTER TABLE course DROP CONSTRAINT course_pkey, ALTER id DROP NOT NULL")
    site.make("CREATE UNIQUE INDEX course_id ON course (id)")
    # NULLs share entries of the index, of which the update leaves half empty.
    site.make("INSERT INTO course SELECT NULL, g::text FROM generate_series(1, 60000) g")
    site.make("UPDATE course SET name = name || '!' WHERE hashtext(name) % 10 <> 0; VACUUM (ANALYZE) course")
    size = "SELECT pg_relation_size('course_id')"
    before = site.server.sql(size, "shop")[0][0]
    density = site.server.sql("SELECT avg_leaf_density FROM pgstatindex('course_id')", "shop")[0][0]
    assert density < 60, "it looks bloated"
    shown = site.run(**only(unique_indexes="always"))
    assert "shop.public.course_id" not in rebuilt(shown)
    site.make("REINDEX INDEX course_id")
    assert site.server.sql(size, "shop")[0][0] > before, "rightly so"


def test_every_row_is_looked_for_when_asked_and_a_bad_option_is_told(bloated: ReindexSite) -> None:
    shown = bloated.run(**only(heap_all_indexed=True))
    evidence = checks_by_name(shown)["structure of rebuilt indexes"]["evidence"]
    assert all("every row of the table is in it" in words for words in evidence.values())
    assert "Correct min_gain" in bloated.run(min_gain="plenty")["msg"]
    assert "Correct databases" in bloated.run(databases=["shup"])["msg"]
