"""The ledger keeps what it is given, in SQLite and in PostgreSQL, from many writers, and never changes it."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.wellkept.maintenance.plugins.plugin_utils import clock, controller, ledger_schema
from ansible_collections.wellkept.maintenance.plugins.plugin_utils.identifiers import new_id
from ansible_collections.wellkept.maintenance.plugins.plugin_utils.ledger import Ledger, ledger_url
from ansible_collections.wellkept.maintenance.plugins.plugin_utils.results import Gathered, result_document
from support.postgresql import PostgresServer


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path, postgresql: PostgresServer) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/ledger.db"
        return
    name = f"ledger_{os.getpid()}_{new_id()[-6:]}"
    postgresql.sql(f"CREATE DATABASE {name}")
    yield f"postgresql+psycopg://postgres:secret@127.0.0.1:{postgresql.port}/{name}"
    postgresql.sql(f"DROP DATABASE {name} WITH (FORCE)")


def new_run(**more: Any) -> dict[str, Any]:
    basis = {
        "id": new_id(), "started": clock.to_text(clock.now()), "controller": controller.identify(os.getpid()),
        "due": {"backup": ["db1"]}, "cadence": "daily", "operator": "ada", "check_mode": False, "approved_by": "",
        "change": "", "source": "//control/wellkept",
    }  # fmt: skip
    return {**basis, **more}


def good_result(run: dict[str, Any], host: str = "db1", status: str = "passed") -> dict[str, Any]:
    check = {"name": "x", "status": status, "expected": "", "observed": "", "advice": "", "evidence": {}}
    part = {"checks": [check], "metrics": {}, "changes": [], "artifacts": []}
    now = clock.to_text(clock.now())
    return result_document(Gathered(host, "backup", "Ops", now, parts=[part]), run, now, run["source"])


def test_runs_parts_and_results_come_back_as_they_were_given(url: str) -> None:
    ledger = Ledger(url)
    run = new_run()
    ledger.open_run(run)
    ledger.append_part(run["id"], "db1", "backup", {"checks": ["é", None]})
    document = good_result(run)
    ledger.append_results([document])
    assert ledger.run(run["id"])["state"] == "open"  # type: ignore[index]
    ledger.end_run(run["id"], "closed", "passed", "1 result")
    ledger.end_run(run["id"], "interrupted", "failed", "said later, and ignored")
    again = Ledger(url)
    assert again.latest_run()["verdict"] == "passed"  # type: ignore[index]
    assert again.results_of(run["id"]) == [document]
    assert again.parts_of(run["id"])[0]["document"] == {"checks": ["é", None]}
    assert again.latest_results(good=True)["db1", "backup"] == document


@pytest.mark.parametrize(
    "statement", ["UPDATE results SET outcome = 'passed'", "DELETE FROM results", "DELETE FROM runs"]
)
def test_nothing_that_was_recorded_can_be_changed(url: str, statement: str) -> None:
    ledger = Ledger(url)
    run = new_run()
    ledger.open_run(run)
    ledger.append_results([good_result(run, status="failed")])
    engine = sa.create_engine(url)
    with pytest.raises(sa.exc.DBAPIError, match="append-only"), engine.begin() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()
    assert ledger.results_of(run["id"])[0]["data"]["outcome"] == "failed"


def test_failures_skips_and_rehearsals_are_no_evidence(url: str) -> None:
    ledger = Ledger(url)
    first, rehearsal, last = new_run(), new_run(check_mode=True), new_run()
    for run, status in ((first, "passed"), (rehearsal, "passed"), (last, "failed")):
        ledger.open_run(run)
        ledger.append_results([good_result(run, status=status)])
    assert ledger.latest_results(good=True)["db1", "backup"]["data"]["run"]["id"] == first["id"]
    assert ledger.latest_results()["db1", "backup"]["data"]["run"]["id"] == last["id"]


def _write_many(url: str, number: int) -> None:
    ledger = Ledger(url)
    run = new_run(due={})
    ledger.open_run(run)
    for _round in range(20):
        ledger.append_part(run["id"], f"h{number}", "backup", {"n": number})
    ledger.append_results([good_result(run, f"h{number}-{index}") for index in range(20)])
    ledger.end_run(run["id"], "closed", "passed")


def test_concurrent_runs_lose_nothing_even_when_they_create_the_ledger_together(url: str) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_many, args=(url, number)) for number in range(6)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0] * 6
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        counts = [
            connection.exec_driver_sql(f"SELECT count(*) FROM {t}").scalar() for t in ("runs", "parts", "results")
        ]
    engine.dispose()
    assert counts == [6, 120, 120]


def test_a_run_is_refused_entry_without_a_trace(url: str) -> None:
    ledger = Ledger(url)
    ledger.open_run(new_run())

    def refuse(others: list[dict[str, Any]]) -> None:
        raise MaintenanceError("open", expected="no other", observed=f"{len(others)} other", advice="Wait.")

    with pytest.raises(MaintenanceError, match="1 other"):
        ledger.open_run(new_run(), admit=refuse)
    assert len(ledger.open_runs()) == 1


def test_an_older_ledger_is_migrated_once_and_a_newer_one_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Ledger(url).open_run(new_run())

    def add_table(connection: sa.Connection) -> None:
        connection.exec_driver_sql("CREATE TABLE sites (name varchar)")

    with monkeypatch.context() as newer:
        newer.setattr(ledger_schema, "MIGRATIONS", (add_table,))
        assert len(Ledger(url).open_runs()) == 1
        assert len(Ledger(url).open_runs()) == 1
    with pytest.raises(MaintenanceError, match="made by a newer Wellkept"):
        Ledger(url)


def test_a_dead_controllers_run_is_settled_and_a_living_ones_is_left_alone(url: str) -> None:
    ledger = Ledger(url)
    alive = new_run()
    dead = new_run(controller={**controller.identify(os.getpid()), "started": 1})
    elsewhere = new_run(controller={"host": "another", "boot": "b", "pid": 1, "started": 1})
    for run in (alive, dead, elsewhere):
        ledger.open_run(run)
    assert [run["id"] for run in ledger.settle_dead_runs()] == [dead["id"]]
    assert {run["id"] for run in ledger.open_runs()} == {alive["id"], elsewhere["id"]}


def test_the_file_is_private_and_survives_a_power_cut(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "ledger.db"
    Ledger(f"sqlite:///{path}")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert sqlite3.connect(path).execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_passwords_are_taken_from_the_environment_alone_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WELLKEPT_LEDGER", raising=False)
    with pytest.raises(MaintenanceError, match="without a password"):
        ledger_url("postgresql+psycopg://wellkept:hunter2@db/ledger")
    monkeypatch.setenv("WELLKEPT_LEDGER", "postgresql+psycopg://wellkept:hunter2@127.0.0.1:1/ledger")
    with pytest.raises(MaintenanceError) as caught:
        Ledger(ledger_url())
    assert "hunter2" not in str(caught.value)
