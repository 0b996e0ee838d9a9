"""What has changed is measured again, in whatever way it changed; what has not is not, and costs next to nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.bloat import ways
from ansible_collections.wellkept.maintenance.plugins.module_utils.bloat.measure import (
    BloatSettings,
    measure_indexes,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.bloat.remembered import Remembered, cluster_of
from support.bloat import PROGRAMS, carry_out, measured, quiet_server, release, session
from support.postgresql import PostgresServer
from support.waiting import wait_until

TABLES = 27  # with two indexes each


@pytest.fixture(scope="module", params=PROGRAMS, ids=release)
def server(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    with quiet_server(request.param) as running:
        for number in range(TABLES):
            carry_out(
                running,
                f"CREATE TABLE t{number} (id int PRIMARY KEY, note text);"
                f"INSERT INTO t{number} SELECT g, 'a' FROM generate_series(1, 5000) g;"
                f"CREATE INDEX t{number}_note ON t{number} (note); ANALYZE t{number}",
            )
        yield running


@pytest.fixture
def remeasured(server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Measure everything, as a run of its own that keeps its memory in a file, and say what was not remembered."""
    measure_by, seen = ways.measure_by, []

    def watched(way: str, context: ways.Context, facts: ways.IndexFacts) -> ways.Finding:
        seen.append(facts.name)
        return measure_by(way, context, facts)

    monkeypatch.setattr(ways, "measure_by", watched)

    def run() -> list[str]:
        seen.clear()
        with session(server) as connection:
            remembered = Remembered.load(str(tmp_path), cluster_of(connection))
            assert remembered.remark == ""
            measure_indexes(connection, BloatSettings(catalogs=False), remembered)
        remembered.save()
        # TOAST tables are of no interest here.
        return sorted(name for name in seen if not name.startswith("pg_toast"))

    return run


def settled(run: Callable[[], list[str]]) -> None:
    """Measure what was changed before this test."""
    run()
    assert run() == []


CHANGES = {
    "insert": "INSERT INTO t1 VALUES (900001, 'new')",
    "update": "UPDATE t1 SET note = 'b' WHERE id = 7",
    "HOT update": "UPDATE t1 SET note = note WHERE id = 8",
    "delete": "DELETE FROM t1 WHERE id = 9",
    "vacuum": "VACUUM t1",
    "another vacuum": "VACUUM t1",
    "COPY": "COPY t1 FROM PROGRAM 'printf ''900002\\tcopied\\n'''",
    "rebuild": "REINDEX TABLE t1",
    "rewrite": "VACUUM FULL t1",
    "truncation": "TRUNCATE t1",
    "reset of one table's counters": "SELECT pg_stat_reset_single_table_counters('t1'::regclass)",
}


@pytest.mark.parametrize("change", CHANGES)
def test_indexes_of_a_changed_table_are_measured_again(
    change: str, server: PostgresServer, remeasured: Callable[[], list[str]]
) -> None:
    settled(remeasured)
    carry_out(server, CHANGES[change])
    found = remeasured()
    if change.startswith("reset"):
        # It puts all counters of the database in doubt.
        assert len(found) == 2 * TABLES
    else:
        assert found == ["t1_note", "t1_pkey"]


def test_one_index_alone_is_measured_again_after_its_own_rebuild_or_a_new_fillfactor(
    server: PostgresServer, remeasured: Callable[[], list[str]]
) -> None:
    for change in ("REINDEX INDEX CONCURRENTLY t2_note", "ALTER INDEX t2_note SET (fillfactor = 70)"):
        settled(remeasured)
        carry_out(server, change)
        assert remeasured() == ["t2_note"]


def test_a_reset_of_the_statistics_puts_everything_in_doubt(
    server: PostgresServer, remeasured: Callable[[], list[str]]
) -> None:
    settled(remeasured)
    server.sql("SELECT pg_stat_reset()")
    assert len(remeasured()) == 2 * TABLES


def test_counters_that_a_crash_set_to_zero_put_everything_in_doubt(
    server: PostgresServer, remeasured: Callable[[], list[str]]
) -> None:
    """Twice: the second time all counters are zero before the crash as they are after it."""
    for _time in range(2):
        settled(remeasured)
        server.stop("immediate")
        server.start()
        assert server.sql("SELECT sum(n_tup_ins) FROM pg_stat_user_tables") == [(0,)]
        assert len(remeasured()) == 2 * TABLES


def test_nothing_is_remembered_where_nothing_is_counted(
    server: PostgresServer, remeasured: Callable[[], list[str]]
) -> None:
    settled(remeasured)
    server.sql("ALTER SYSTEM SET track_counts = off")
    server.sql("SELECT pg_reload_conf()")
    try:
        deadline = time.monotonic() + 60
        while server.sql("SHOW track_counts") != [("off",)]:
            assert time.monotonic() < deadline
        assert len(remeasured()) == 2 * TABLES
        assert len(remeasured()) == 2 * TABLES
    finally:
        server.sql("ALTER SYSTEM RESET track_counts")
        server.sql("SELECT pg_reload_conf()")


def test_another_way_of_measuring_is_not_satisfied_with_what_the_first_said(
    server: PostgresServer, tmp_path: Path
) -> None:
    with session(server) as connection:
        remembered = Remembered.load(str(tmp_path), cluster_of(connection))
    methods = [measured(server, remembered, sample_above_bytes=above)["t3_pkey"].method for above in (1024**2, 8192)]
    assert methods == ["pgstatindex", "sampled"]


def test_54_unchanged_indexes_cost_less_than_a_tenth_of_a_second(
    server: PostgresServer, tmp_path: Path, remeasured: Callable[[], list[str]]
) -> None:
    settled(remeasured)
    with session(server) as connection:
        cluster = cluster_of(connection)

        def seconds() -> float:
            began = time.perf_counter()
            remembered = Remembered.load(str(tmp_path), cluster)
            found = measure_indexes(connection, BloatSettings(catalogs=False), remembered)
            remembered.save()
            taken = time.perf_counter() - began
            assert sum(index.table.startswith("t") for index in found) == 2 * TABLES
            return taken

        # Others may keep the machine busy for a while.
        wait_until(lambda: seconds() < 0.1, "a run of less than a tenth of a second")


def test_what_is_remembered_is_private_and_says_the_same_as_the_measurement(
    server: PostgresServer, tmp_path: Path, remeasured: Callable[[], list[str]]
) -> None:
    settled(remeasured)
    file = next((tmp_path / "bloat").iterdir())
    assert (os.stat(file).st_mode & 0o777, os.stat(file.parent).st_mode & 0o777) == (0o600, 0o700)
    with session(server) as connection:
        remembered = Remembered.load(str(tmp_path), cluster_of(connection))
    assert measured(server, remembered) == measured(server)


def test_wal_is_not_written_by_measuring(server: PostgresServer, remeasured: Callable[[], list[str]]) -> None:
    settled(remeasured)
    deadline = time.monotonic() + 60
    while True:  # others write too: the server itself, now and then, and whoever reads a page first after a change
        before = server.sql("SELECT pg_current_wal_insert_lsn()")
        remeasured()
        measured(server)
        if server.sql("SELECT pg_current_wal_insert_lsn()") == before:
            break
        assert time.monotonic() < deadline
