"""What the restore test decides and how it words what it saw, without a server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore.assertions import normal
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore.proof import why_due
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore.scratch_cluster import (
    configuration,
    dying_with_us,
    scratch_settings,
)

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
DAY = 86400.0


def proof(age: timedelta, *looked_at: str) -> dict[str, Any]:
    return {"proven_at": f"{NOW - age:%Y-%m-%dT%H:%M:%S}.000Z", "looked_at": [*looked_at, "amcheck"]}


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (None, "not proven yet"),
        (proof(timedelta(days=5)), ""),
        (proof(timedelta(days=6)), "6 d old"),
        (proof(timedelta(minutes=-4)), ""),
        (proof(timedelta(minutes=-6)), "in the future"),
    ],
)
def test_a_proof_is_enough_while_it_is_young_and_not_from_the_future(found: dict[str, Any] | None, why: str) -> None:
    reason = why_due(found, ["amcheck"], 6 * DAY, NOW)
    assert (why in reason) if why else reason == ""


def test_a_proof_that_looked_less_closely_is_not_enough() -> None:
    recent = timedelta(hours=1)
    wanted = ["amcheck", "restore_dump"]
    assert why_due(proof(recent), wanted, DAY, NOW) == "its proof did not look at restore_dump"
    assert why_due(proof(recent, "restore_dump", "heap_all_indexed"), wanted, DAY, NOW) == ""


def test_nothing_in_the_scratch_cluster_reaches_out() -> None:
    settings = scratch_settings(180006, "", {})
    assert settings["listen_addresses"] == ""
    assert settings["archive_mode"] == "off"
    assert settings["max_wal_senders"] == "0"
    assert settings["max_logical_replication_workers"] == "0"
    assert settings["primary_conninfo"] == ""
    assert settings["recovery_target_action"] == "promote"


@pytest.mark.parametrize(
    ("libraries", "workers"),
    [("", "8"), ("pg_stat_statements, auto_explain", "8"), ("pg_cron", "0"), ("pg_stat_statements,timescaledb", "0")],
)
def test_a_library_that_might_act_by_itself_gets_no_worker(libraries: str, workers: str) -> None:
    assert scratch_settings(180006, libraries, {})["max_worker_processes"] == workers


def test_what_recovery_needs_comes_from_the_control_data() -> None:
    control = {"max_prepared_xacts setting": "40", "max_locks_per_xact setting": "512"}
    settings = scratch_settings(140000, "", control)
    assert (settings["max_prepared_transactions"], settings["max_locks_per_transaction"]) == ("40", "512")
    assert "event_triggers" not in settings, "a setting that this version does not know"
    assert "log_startup_progress_interval" not in settings


def test_a_value_cannot_leave_its_quotes() -> None:
    assert configuration({"a": r"it's C:\x"}) == "a = 'it''s C:\\\\x'\n"
    with pytest.raises(ValueError, match="cannot be written"):
        configuration({"a": "x\nfsync = off"})


def test_programs_die_with_us_whoever_they_run_as() -> None:
    assert dying_with_us(["setpriv", "--reuid=1", "--"]) == ["setpriv", "--reuid=1", "--pdeathsig=QUIT", "--"]
    assert dying_with_us([], "KILL")[1:] == ["--pdeathsig=KILL", "--"]


def test_values_are_compared_as_an_operator_writes_them() -> None:
    assert [normal(value) for value in (True, "True", None, 3, "3", "text")] == [
        "true",
        "true",
        "null",
        "3",
        "3",
        "text",
    ]
