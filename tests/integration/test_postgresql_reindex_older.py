"""The module postgresql_reindex on older servers, where the host has one: the same work, the rights of before 17."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from support.modules import checks_by_name, module_process
from support.postgresql import PostgresServer, available_majors, bin_dir_of, postgres_server, server_id
from support.reindex import BLOATED, GATED, KINDS, ReindexSite, leave_leftover, rebuilt, statuses

OLDER = [major for major in available_majors() if major < 18]

pytestmark = pytest.mark.skipif(not OLDER, reason="no PostgreSQL older than 18 is installed on this host")


@pytest.fixture(scope="module", params=OLDER, ids=server_id)
def server(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    settings = {"shared_preload_libraries": "pg_stat_statements", "autovacuum": "off"}
    with postgres_server(settings, bin_dir_of(request.param)) as running:
        yield running


@pytest.fixture
def site(server: PostgresServer, tmp_path: Any) -> ReindexSite:
    server.sql("DROP DATABASE IF EXISTS shop")
    server.sql("CREATE DATABASE shop")
    made = ReindexSite(server, tmp_path / "state")
    made.make("CREATE EXTENSION pg_stat_statements")
    return made


def test_an_older_server_s_indexes_of_every_kind_are_rebuilt_and_proven_too(site: ReindexSite) -> None:
    site.make(KINDS)
    leave_leftover(site, "student_name")
    before = site.indexes()
    shown = site.run()
    assert not shown["failed"], shown["msg"]
    assert [name for name in rebuilt(shown) if "pg_toast" not in name] == BLOATED
    assert set(statuses(shown).values()) == {"passed"}
    after = site.indexes()
    assert set(before) - set(after) == {"public.student_name_ccnew"}
    assert all(before[name][1:] == after[name][1:] for name in after)
    position = site.wal_position()
    again = site.run()
    assert not again["changed"]
    assert site.wal_position() == position


def test_before_17_only_the_owner_may_rebuild_and_others_are_told_so(site: ReindexSite) -> None:
    site.make(KINDS)
    site.make("CREATE EXTENSION pgstattuple; CREATE EXTENSION amcheck; DROP ROLE IF EXISTS own")
    site.make("CREATE ROLE own LOGIN IN ROLE pg_read_all_stats, pg_stat_scan_tables; ALTER TABLE student OWNER TO own")
    shown = site.run(login_user="own", tables=["public.student", "public.enrolment*"], amcheck=False)
    assert not shown["failed"], shown["msg"]
    assert rebuilt(shown) == ["shop.public.student_lower", "shop.public.student_name", "shop.public.student_pkey"]
    check = checks_by_name(shown)["bloat of shop.public.enrolment_0_name_idx"]
    assert check["status"] == "warned"
    if site.server.sql("SHOW server_version_num")[0][0] < "170000":
        assert "before PostgreSQL 17 no other right suffices" in check["observed"]
    site.make("DROP TABLE student; DROP ROLE own")


def test_somebody_who_waits_on_a_rebuild_is_let_through_on_an_older_server_too(site: ReindexSite) -> None:
    site.make(GATED)
    with site.closed_gate() as open_gate:
        options = site.options(tables=["public.gated"], retry_for="5m", max_block="0.3s", amcheck=False)
        process = module_process("postgresql_reindex", options)
        site.until_rebuild_waits_at_the_gate()
        site.make("ALTER TABLE gated ALTER name SET STATISTICS 50")
        open_gate()
    shown = json.loads(process.communicate(timeout=300)[0])
    assert rebuilt(shown) == ["shop.public.gated_id"]
    assert shown["metrics"]["cancelled_rebuilds"]["value"] >= 1
    assert site.invalid() == []
