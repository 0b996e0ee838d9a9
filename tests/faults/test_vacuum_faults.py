"""What stands in the way of a vacuum is named, nothing is vacuumed in vain, and nothing is called done that was not."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from support.modules import checks_by_name, module_process, run_module
from support.postgresql import PostgresServer, available_majors, bin_dir_of, postgres_server, server_id
from support.standby import standby_of
from support.vacuum import VacuumSite, changed_tables, check_like, done
from support.waiting import wait_until

NewSite = Callable[[], VacuumSite]
SETTINGS = {"autovacuum": "off", "max_prepared_transactions": "4", "max_wal_senders": "4", "wal_level": "replica"}


@pytest.fixture(scope="module", params=available_majors(), ids=server_id)
def server(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    with postgres_server(SETTINGS, bin_dir=bin_dir_of(request.param)) as running:
        yield running


@pytest.fixture
def site(server: PostgresServer, tmp_path: Path) -> Iterator[VacuumSite]:
    made = VacuumSite(server, tmp_path / "state")
    yield made
    server.sql(f'DROP DATABASE "{made.name}" WITH (FORCE)')


@pytest.fixture
def own_server(server: PostgresServer) -> Iterator[PostgresServer]:
    """A server of the same version, for one test that harms it."""
    with postgres_server(SETTINGS, bin_dir=server.bin_dir) as running:
        yield running


def assert_not_vacuumed(site: VacuumSite, table: str) -> None:
    assert site.value(f"SELECT last_vacuum FROM pg_stat_user_tables WHERE relname = '{table}'") is None


def test_a_prepared_transaction_is_named_and_nothing_is_vacuumed_in_vain(site: VacuumSite) -> None:
    site.sql("CREATE TABLE other (id int)")
    with site.server.connect(site.name) as session:
        session.execute("BEGIN")
        session.execute("INSERT INTO other VALUES (1)")
        session.execute("PREPARE TRANSACTION 'forgotten it''s'")
    site.fill()
    shown = site.vacuum(analyze=False)
    check = checks_by_name(shown)["blocked by prepared transaction forgotten it's"]
    assert check["status"] == "warned"
    assert "public.orders" in check["observed"]
    assert "ROLLBACK PREPARED 'forgotten it''s'" in check["advice"]
    assert "public.orders" not in changed_tables(shown)
    assert_not_vacuumed(site, "orders")
    assert shown["metrics"]["held_tables"]["value"] == 1
    site.sql("ROLLBACK PREPARED 'forgotten it''s'")
    assert "public.orders" in changed_tables(site.vacuum(analyze=False))
    assert site.dirty("orders") == 0


def test_a_long_snapshot_is_named_by_its_process_and_application(site: VacuumSite) -> None:
    site.fill("orders", delete=False)
    site.sql("VACUUM (ANALYZE) orders")
    with site.server.connect(site.name, application_name="yearly report") as reader:
        reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT count(*) FROM orders")
        site.sql("DELETE FROM orders WHERE id % 2 = 0")
        shown = site.vacuum(analyze=False)
        check = checks_by_name(shown)[f"blocked by session {reader.info.backend_pid}"]
        assert check["status"] == "warned"
        assert "yearly report" in check["observed"]
        assert "idle in transaction" in check["observed"]
        assert "public.orders" not in changed_tables(shown)
        assert "public.orders" not in changed_tables(site.vacuum(analyze=False))
        reader.execute("ROLLBACK")
    assert "public.orders" in changed_tables(site.vacuum(analyze=False))


def test_what_died_before_the_snapshot_is_vacuumed_all_the_same(site: VacuumSite) -> None:
    site.fill()
    with site.server.connect(site.name) as reader:
        reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT count(*) FROM orders")
        shown = site.vacuum(analyze=False)
    assert done(shown, site.name)["public.orders"]["dirty_pages_after"] == 0


def test_a_session_in_another_database_holds_nothing_back_here(site: VacuumSite) -> None:
    with site.server.connect() as reader:
        reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT count(*) FROM pg_class")
        site.fill()
        shown = site.vacuum(analyze=False)
    assert "public.orders" in changed_tables(shown)
    assert not [check for check in shown["checks"] if check["name"].startswith("blocked by")]
    # It is listed all the same.
    listed = checks_by_name(shown)["age of the oldest transactions"]["evidence"]["held_back_by"]
    assert any("idle in transaction, database postgres" in line for line in listed)


def test_without_looking_into_rows_a_second_vacuum_in_vain_is_not_made(site: VacuumSite) -> None:
    with site.server.connect(site.name) as reader:
        site.fill("orders", delete=False)
        site.sql("VACUUM (ANALYZE) orders")
        reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT count(*) FROM orders")
        site.sql("DELETE FROM orders WHERE id % 2 = 0")
        options: dict[str, Any] = {"create_extensions": False, "analyze": False, "tables": ["public.*"]}
        site.sql("CREATE EXTENSION pg_visibility")
        first = site.vacuum(**options)
        assert check_like(first, "blocked by session")["status"] == "warned"
        count = "SELECT vacuum_count FROM pg_stat_user_tables WHERE relname = 'orders'"
        once = site.value(count)
        second = site.vacuum(**options)
        held = check_like(second, "blocked by session")["evidence"]["tables"][0]
        assert "vacuumed since the holder began" in held["how_known"]
        assert site.value(count) == once
        reader.execute("ROLLBACK")


def test_freezing_what_cannot_become_younger_is_not_tried(site: VacuumSite) -> None:
    site.fill("old", rows=2000, delete=False)
    site.sql("VACUUM (ANALYZE) old")
    site.sql("ALTER TABLE old SET (autovacuum_freeze_max_age = 100000)")
    with site.server.connect(site.name) as reader:
        reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT count(*) FROM old")
        for _number in range(200):
            site.sql("SELECT txid_current()")
        shown = site.vacuum(freeze_share=0.001, tables=["public.old"])
        check = check_like(shown, "blocked by session")
        assert "cannot fall below" in check["evidence"]["tables"][0]["how_known"]
        assert not shown["changed"] or changed_tables(shown) == set()
        reader.execute("ROLLBACK")
    assert "public.old" in changed_tables(site.vacuum(freeze_share=0.001, tables=["public.old"]))


# What its queries need, a standby tells the primary.
FEEDBACK = {"hot_standby_feedback": "on", "wal_receiver_status_interval": "1s"}


def test_a_standbys_query_and_then_its_dead_slot_are_named(site: VacuumSite) -> None:
    server, slot = site.server, f"replica_{site.name}"
    site.fill("orders", delete=False)
    site.sql("VACUUM (ANALYZE) orders")
    xmin = f"SELECT xmin::text FROM pg_replication_slots WHERE slot_name = '{slot}'"
    try:
        with standby_of(server, slot, cluster_name=slot, **FEEDBACK) as standby:
            wait_until(lambda: standby.sql("SELECT pg_is_in_recovery()") and server.sql(xmin)[0][0], "feedback")
            with contextlib.suppress(psycopg.OperationalError), standby.connect(site.name) as reader:
                reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
                reader.execute("SELECT count(*) FROM orders")
                # The slot stands still at the snapshot of that query, while the primary goes on.
                held = reader.execute("SELECT pg_snapshot_xmin(pg_current_snapshot())::text").fetchone()
                assert held is not None
                site.sql("DELETE FROM orders WHERE id % 2 = 0")
                for _number in range(3):
                    site.sql("SELECT txid_current()")
                wait_until(lambda: server.sql(xmin)[0][0] == held[0], "the snapshot to be reported")
                shown = site.vacuum(analyze=False)
                check = checks_by_name(shown)[f"blocked by replication slot {slot}"]
                assert check["status"] == "warned"
                assert "in use by process" in check["observed"]
                assert "public.orders" not in changed_tables(shown)
                skipped = run_module("postgresql_vacuum", {**site.options(), **standby.login()})
                assert skipped["skipped"]
                assert "by way of its primary" in skipped["msg"]
                # Killed with its query open, the standby never takes its word back.
                standby.stop("immediate")
        wait_until(lambda: not server.sql("SELECT 1 FROM pg_stat_replication"), "the standby to be gone")
        shown = site.vacuum(analyze=False)
        check = checks_by_name(shown)[f"blocked by replication slot {slot}"]
        assert "not in use" in check["observed"]
        assert f"pg_drop_replication_slot('{slot}')" in check["advice"]
        assert_dirty(site, "orders")
    finally:
        wait_until(lambda: not server.sql("SELECT 1 FROM pg_stat_replication"), "the standby to be gone")
        server.sql(f"SELECT pg_drop_replication_slot('{slot}')")
    assert "public.orders" in changed_tables(site.vacuum(analyze=False))


def assert_dirty(site: VacuumSite, table: str) -> None:
    assert site.dirty(table) > 0


def test_a_role_without_the_right_is_told_which_grant_it_lacks(site: VacuumSite) -> None:
    site.fill()
    site.sql("CREATE EXTENSION pg_visibility")
    site.server.sql(f"CREATE ROLE weak_{site.name} LOGIN")
    shown = site.vacuum(login_user=f"weak_{site.name}")
    check = checks_by_name(shown)[f"rights in the database {site.name}"]
    assert shown["failed"]
    assert check["status"] == "failed"
    assert "public.orders" in check["observed"]
    wanted = f"GRANT pg_maintain TO weak_{site.name}" if site.server.major >= 17 else "own public.orders"
    assert wanted in check["advice"]
    assert not shown["changed"]
    assert_dirty(site, "orders")
    site.server.sql(f"DROP ROLE weak_{site.name}")


def test_a_grant_that_goes_in_the_middle_is_not_taken_for_done(site: VacuumSite) -> None:
    """The server only warns: what was not vacuumed is seen by measuring, even when the role was thought to have it."""
    from ansible_collections.wellkept.maintenance.plugins.module_utils.database import session
    from ansible_collections.wellkept.maintenance.plugins.module_utils.database.watchdog import Pair
    from ansible_collections.wellkept.maintenance.plugins.module_utils.result import Part
    from ansible_collections.wellkept.maintenance.plugins.module_utils.vacuum import act, decide, measure, table

    site.fill()
    role = f"weak_{site.name}"
    site.server.sql(f"CREATE ROLE {role} LOGIN")
    params = {"login_host": "", "login_db": "postgres", "login_password": "", **site.server.login()}
    strong = session.open_session(params, site.name, purpose="test")
    pair = Pair(lambda: session.open_session({**params, "login_user": role}, site.name, purpose="test"))
    try:
        sight = measure.look_for(strong, site.name, create=True, part=Part(), check_mode=False)
        [orders] = [one for one in measure.measure_tables(strong, sight) if one.name == "orders"]
        limits = table.limits_of(orders, measure.read_settings(strong))
        step = decide.decide(orders, limits, decide.Settings())
        assert step is not None
        outcome = act.carry_out(pair, strong, sight, step, max_block=1.0, timeout=0.0)
    finally:
        pair.close()
        strong.close()
        site.server.sql(f"DROP ROLE {role}")
    assert outcome.result == act.NO_EFFECT
    assert "still not all-visible" in outcome.words


def test_the_owner_needs_nobody_else(site: VacuumSite) -> None:
    site.fill()
    role = f"owner_{site.name}"
    site.server.sql(f"CREATE ROLE {role} LOGIN")
    site.sql(f"ALTER TABLE orders OWNER TO {role}")
    shown = site.vacuum(login_user=role)
    assert not shown["failed"], shown["msg"]
    assert "public.orders" in changed_tables(shown)
    assert done(shown, site.name)["public.orders"]["confidence"] == "low"
    assert_clean(site, "orders")
    assert changed_tables(site.vacuum(login_user=role)) == set()
    site.sql("DROP TABLE orders")
    site.server.sql(f"DROP ROLE {role}")


def assert_clean(site: VacuumSite, table: str) -> None:
    assert site.dirty(table) == 0


def test_the_role_for_maintenance_needs_no_superuser(site: VacuumSite) -> None:
    if site.server.major < 17:
        pytest.skip("pg_maintain came with PostgreSQL 17")
    site.fill()
    role = f"keeper_{site.name}"
    site.server.sql(f"CREATE ROLE {role} LOGIN IN ROLE pg_maintain, pg_stat_scan_tables, pg_read_all_stats")
    site.sql("CREATE EXTENSION pg_visibility")
    shown = site.vacuum(login_user=role)
    assert not shown["failed"], shown["msg"]
    assert done(shown, site.name)["public.orders"]["confidence"] == "high"
    assert_clean(site, "orders")
    assert not site.vacuum(login_user=role)["changed"]
    site.server.sql(f"DROP ROLE {role}")


def test_counters_that_were_reset_deceive_nobody(site: VacuumSite) -> None:
    site.fill()
    site.sql("SELECT pg_stat_reset()")
    wait_until(
        lambda: site.value("SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'orders'") == 0, "a reset"
    )
    found = done(site.vacuum(), site.name)["public.orders"]
    assert any("not all-visible" in why for why in found["why"])
    assert (found["dead_rows"], found["dirty_pages_after"]) == (0, 0)


def test_counters_that_a_crash_zeroed_deceive_nobody(own_server: PostgresServer, tmp_path: Path) -> None:
    site = VacuumSite(own_server, tmp_path / "state")
    site.fill(rows=40000)
    site.sql("CHECKPOINT")
    pid = int((own_server.data / "postmaster.pid").read_text().split()[0])
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the postmaster to be gone")
    # Its children end by themselves; until then the shared memory is in use and a start is refused.
    wait_until(lambda: starts(own_server), "the server to start again")
    assert site.value("SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'orders'") == 0
    before = site.dirty("orders")
    assert before > 100
    shown = site.vacuum()
    assert done(shown, site.name)["public.orders"]["dirty_pages"] == before
    assert_clean(site, "orders")
    assert not site.vacuum()["changed"]


def starts(server: PostgresServer) -> bool:
    try:
        server.start()
    except subprocess.CalledProcessError:
        return False
    return True


def test_a_table_that_somebody_locks_is_not_waited_for_and_not_called_done(site: VacuumSite) -> None:
    site.fill("locked")
    site.fill("free")
    with site.server.connect(site.name, application_name="migration") as holder:
        holder.execute("BEGIN")
        holder.execute("LOCK TABLE locked IN ACCESS EXCLUSIVE MODE")
        shown = site.vacuum()
        assert changed_tables(shown) == {"public.free"}
        check = check_like(shown, "vacuum and analyze of public.locked")
        assert check["status"] == "warned"
        assert f"process {holder.info.backend_pid} (migration" in check["observed"]
        holder.execute("ROLLBACK")
    assert not shown["failed"]
    assert changed_tables(site.vacuum()) == {"public.locked"}


def test_a_lock_that_goes_soon_is_found_gone_by_a_later_try(site: VacuumSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock goes in the pause between two tries, however long that is on a slow machine."""
    from ansible_collections.wellkept.maintenance.plugins.module_utils.result import Part
    from ansible_collections.wellkept.maintenance.plugins.module_utils.vacuum import act, flow
    from ansible_collections.wellkept.maintenance.plugins.modules import postgresql_vacuum

    site.fill("busy")
    defaults = {name: option.get("default") for name, option in postgresql_vacuum.OPTIONS.items()}
    pauses: list[float] = []
    part = Part()
    with site.server.connect(site.name) as holder:
        holder.execute("BEGIN")
        holder.execute("LOCK TABLE busy IN ACCESS EXCLUSIVE MODE")

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == len(flow.PAUSES):
                holder.execute("ROLLBACK")

        monkeypatch.setattr(act, "pause", pause)
        postgresql_vacuum.work(SimpleNamespace(params={**defaults, **site.options()}, check_mode=False), part)
    assert pauses == list(flow.PAUSES)
    assert "public.busy" in changed_tables({"changes": part.changes})
    assert_clean(site, "busy")


def test_a_partition_that_somebody_locks_does_not_stop_the_run(site: VacuumSite) -> None:
    site.sql("CREATE TABLE log (id int) PARTITION BY RANGE (id)")
    for number in range(2):
        site.sql(f"CREATE TABLE log_{number} PARTITION OF log FOR VALUES FROM ({number}000) TO ({number + 1}000)")
    site.sql("INSERT INTO log SELECT generate_series(0, 1999)")
    site.fill("free")
    with site.server.connect(site.name) as holder:
        holder.execute("BEGIN")
        holder.execute("LOCK TABLE ONLY log_1 IN ACCESS EXCLUSIVE MODE")
        shown = site.vacuum(time_budget="60s")
        holder.execute("ROLLBACK")
    assert {"public.free", "public.log_0"} <= changed_tables(shown) | {"public.log_0"}
    assert "public.log_1" not in changed_tables(shown)
    assert not shown["failed"], shown["msg"]
    site.vacuum()
    assert changed_tables(site.vacuum()) == set()


def slow(site: VacuumSite) -> dict[str, Any]:
    """Options by which a vacuum of ``orders`` takes far longer than any test waits."""
    return site.options(vacuum_cost_delay_ms=100, vacuum_cost_limit=1, analyze=False, tables=["public.orders"])


def vacuum_processes(site: VacuumSite) -> list[int]:
    return [row[0] for row in site.server.sql(
        f"SELECT v.pid FROM pg_stat_progress_vacuum v WHERE v.datname = '{site.name}'"
    )]  # fmt: skip


def test_nobody_waits_longer_than_the_bound(site: VacuumSite) -> None:
    site.fill(rows=60000)
    site.fill("idle", rows=10)
    process = module_process("postgresql_vacuum", {**slow(site), "max_block": "0.3s"})
    wait_until(lambda: vacuum_processes(site), "the vacuum to be at work")
    stop = threading.Event()
    # What the same statement takes where no vacuum is in its way, with the pause before it, says how slow the machine
    # is just now.
    waits: dict[str, list[float]] = {"orders": [], "idle": [0.0]}

    def alter(table: str) -> None:
        with site.server.connect(site.name) as session:
            began = time.monotonic()
            while not stop.wait(0.05):
                if table == "orders":
                    began = time.monotonic()
                session.execute(f"ALTER TABLE {table} SET (fillfactor = 90)")
                ended = time.monotonic()
                waits[table].append(ended - began)
                began = ended

    threads = [threading.Thread(target=alter, args=(table,)) for table in waits]
    for thread in threads:
        thread.start()
    output, errors = process.communicate(timeout=300)
    stop.set()
    for thread in threads:
        thread.join()
    shown = json.loads(output)
    assert not shown.get("failed"), errors
    assert max(waits["orders"]) < 0.3 + 0.5 + 5 * max(waits["idle"]), waits
    check = check_like(shown, "vacuum of public.orders")
    assert check["status"] == "warned", "cancelled half-way, it is not done"
    assert "had waited" in check["observed"]
    assert shown["metrics"]["longest_wait_seconds"]["value"] > 0.3
    assert shown["metrics"]["vacuumed_tables"]["value"] == 0


def test_a_signal_to_stop_cancels_the_vacuum_on_the_server(site: VacuumSite) -> None:
    site.fill(rows=60000)
    process = module_process("postgresql_vacuum", slow(site))
    wait_until(lambda: vacuum_processes(site), "the vacuum to be at work")
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=300)
    assert "stopped by SIGTERM" in output, output + errors
    assert vacuum_processes(site) == []


def test_when_the_module_is_killed_its_vacuum_dies_with_it(site: VacuumSite) -> None:
    site.fill(rows=60000)
    process = module_process("postgresql_vacuum", slow(site))
    wait_until(lambda: vacuum_processes(site), "the vacuum to be at work")
    process.kill()
    process.communicate()
    wait_until(lambda: not vacuum_processes(site), "the server to end the vacuum")
    shown = site.vacuum()
    assert not shown["failed"], shown["msg"]
    assert_clean(site, "orders")


def test_two_runs_at_once_never_work_in_one_database(site: VacuumSite, tmp_path: Path) -> None:
    site.fill(rows=60000)
    process = module_process("postgresql_vacuum", slow(site))
    [pid] = wait_until(lambda: vacuum_processes(site), "the first run to be at work")
    # From the same host the lock of the activity says so; from another one, the server does.
    same_host = site.vacuum()
    assert same_host["failed"]
    assert "take the lock for database_vacuum" in same_host["msg"]
    other_host = site.vacuum(state_dir=str(tmp_path / "other"))
    check = checks_by_name(other_host)[f"claim the database {site.name}"]
    assert check["status"] == "failed"
    assert f"process {pid}" in check["observed"]
    process.terminate()
    process.communicate(timeout=300)
    assert "public.orders" in changed_tables(site.vacuum())


def test_databases_that_allow_no_connections_are_passed_over(site: VacuumSite) -> None:
    server = site.server
    server.sql("CREATE DATABASE closed ALLOW_CONNECTIONS false")
    try:
        site.fill()
        shown = site.vacuum(databases=["*"])
        assert not shown["failed"], shown["msg"]
        names = {check["name"] for check in shown["checks"]}
        assert f"vacuum of the database {site.name}" in names
        assert "vacuum of the database closed" not in names
        ages = checks_by_name(shown)["age of the oldest transactions"]["evidence"]["databases"]
        assert {"closed", "template0"} <= {row["name"] for row in ages}
    finally:
        server.sql("DROP DATABASE closed")


def test_a_server_that_goes_away_in_the_middle_is_told_with_what_was_done(
    own_server: PostgresServer, tmp_path: Path
) -> None:
    site = VacuumSite(own_server, tmp_path / "state")
    site.fill("orders", rows=60000)
    process = module_process("postgresql_vacuum", slow(site))
    wait_until(lambda: vacuum_processes(site), "the vacuum to be at work")
    own_server.stop("immediate")
    output, errors = process.communicate(timeout=300)
    assert '"failed": true' in output, output + errors
    assert "Traceback" not in output + errors
    assert "public.orders" not in str([line for line in output.splitlines() if "vacuum done" in line])
    own_server.start()
    assert "public.orders" in changed_tables(site.vacuum())


def test_wrong_options_are_refused_before_anything_is_done(site: VacuumSite) -> None:
    site.fill()
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"databases": ["no such database"]}, "no such database"),
        ({"tables": ["public.orders", "public.oders"]}, "public.oders"),
        ({"time_budget": "soon"}, "time_budget"),
        ({"max_block": "never"}, "max_block"),
        ({"dirty_share": 1.5}, "dirty_share"),
        ({"freeze_share": 0.0}, "freeze_share"),
        ({"vacuum_cost_delay_ms": 500}, "vacuum_cost_delay_ms"),
        ({"vacuum_cost_limit": 0}, "vacuum_cost_limit"),
    ]
    for options, words in wrong:
        shown = site.vacuum(**options)
        assert shown["failed"], options
        assert words in shown["msg"]
        assert "public.orders" not in changed_tables(shown)
    assert_not_vacuumed(site, "orders")


def test_a_server_that_does_not_answer_is_said_to_be_down(site: VacuumSite) -> None:
    shown = site.vacuum(login_unix_socket="/nowhere")
    assert shown["failed"]
    assert "Start the server, or correct login_host" in shown["msg"]


def test_past_the_failsafe_age_the_indexes_are_left_for_later(tmp_path: Path, server: PostgresServer) -> None:
    settings = {**SETTINGS, "autovacuum_freeze_max_age": "100000", "vacuum_failsafe_age": "0", "log_statement": "all"}
    with postgres_server(settings, bin_dir=server.bin_dir) as old:
        site = VacuumSite(old, tmp_path / "state")
        site.fill()
        site.sql("CREATE UNLOGGED TABLE burnt (n int)")
        for _round in range(4):
            # Every subtransaction that writes takes a number of its own.
            site.sql(
                "DO $$ BEGIN FOR i IN 1..27000 LOOP BEGIN INSERT INTO burnt VALUES (i); "
                "EXCEPTION WHEN OTHERS THEN RAISE; END; END LOOP; END $$"
            )
        assert site.age("orders") > 105_000
        shown = site.vacuum()
        found = done(shown, site.name)["public.orders"]
        assert any("failsafe" in why for why in found["why"])
        assert site.age("orders") < 1000
        log = (old.directory / "server.log").read_text()
        assert "FREEZE, INDEX_CLEANUP OFF, ANALYZE" in log
        # The next run, when it is young again, finds the index entries that were left.
        assert site.value("SELECT count(*) FROM orders") > 0


def test_an_owner_reaches_the_toast_of_its_table(site: VacuumSite) -> None:
    role = f"owner_{site.name}"
    site.server.sql(f"CREATE ROLE {role} LOGIN")
    site.sql("CREATE TABLE letters (id int, words text)")
    site.sql("ALTER TABLE letters ALTER words SET STORAGE EXTERNAL")
    site.sql(f"ALTER TABLE letters OWNER TO {role}")
    site.sql("INSERT INTO letters SELECT g, repeat(g::text, 3000) FROM generate_series(1, 500) g")
    site.sql("VACUUM (ANALYZE) letters")
    site.sql("UPDATE letters SET words = repeat('x', 4000) WHERE id <= 300")
    toast = site.value("SELECT reltoastrelid::regclass::text FROM pg_class WHERE relname = 'letters'")
    assert site.dirty(toast) > 0
    shown = site.vacuum(login_user=role)
    assert not shown["failed"], shown["msg"]
    assert "public.letters (TOAST)" in changed_tables(shown)
    assert site.dirty(toast) == 0
    assert changed_tables(site.vacuum(login_user=role)) == set()
    site.sql("DROP TABLE letters")
    site.server.sql(f"DROP ROLE {role}")
