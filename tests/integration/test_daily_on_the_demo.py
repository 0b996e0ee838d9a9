"""The daily cadence from end to end on the demo platform: a real database, a real application, real logs and files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support.checkout import DemoCheckout, demo_checkout

ACTIVITIES = {
    "health_check",
    "storage_cleanup",
    "log_rotation",
    "cache_clearing",
    "backup",
    "backup_verification",
    "backup_mirror",
    "restore_test",
    "database_vacuum",
    "database_reindex",
    "database_integrity",
    "query_review",
}


@pytest.fixture(scope="module")
def checkout() -> Iterator[DemoCheckout]:
    with demo_checkout() as copy:
        yield copy


@pytest.fixture(scope="module")
def reports(checkout: DemoCheckout) -> list[dict[str, Any]]:
    """The reports of a rehearsal, of the first run, and of a second one that counted its module executions."""
    found = []
    rehearsal = checkout.play("daily", "--check")
    assert rehearsal.returncode == 0, rehearsal.stdout + rehearsal.stderr
    found.append(checkout.report())
    first = checkout.play("daily")
    assert first.returncode == 0, first.stdout + first.stderr
    found.append(checkout.report())
    second, executions = checkout.play_counting("daily")
    assert second.returncode == 0, second.stdout + second.stderr
    found.append({**checkout.report(), "executions": executions})
    return found


def data_by_activity(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {document["data"]["activity"]: document["data"] for document in report["results"]}


def test_a_rehearsal_says_what_it_would_do_and_changes_nothing(reports: list[dict[str, Any]]) -> None:
    rehearsal, first, _second = reports
    assert rehearsal["run"]["check_mode"]
    would = {name for name, data in data_by_activity(rehearsal).items() if data["changes"]}
    assert would >= {"storage_cleanup", "log_rotation", "backup"}
    did = {name for name, data in data_by_activity(first).items() if data["changes"]}
    assert did >= would, "what was announced was still to be done"


def test_the_first_run_does_and_proves_everything(reports: list[dict[str, Any]]) -> None:
    found = data_by_activity(reports[1])
    assert set(found) == ACTIVITIES
    assert {name: data["outcome"] for name, data in found.items() if data["outcome"] != "passed"} == {}
    assert reports[1]["run"]["verdict"] == "passed"
    assert found["restore_test"]["metrics"], "recovery time and point were measured"
    checks = {check["name"]: check["status"] for check in found["restore_test"]["checks"]}
    assert checks["recovery to the target newest"] == "passed", "the WAL archive leads beyond the backup"


def test_a_second_run_changes_nothing_and_costs_one_module_execution_an_activity(reports: list[dict[str, Any]]) -> None:
    second = reports[2]
    changed = {name: data["changes"] for name, data in data_by_activity(second).items() if data["changed"]}
    assert changed == {}
    assert second["executions"] == len(data_by_activity(second)), "one for each activity and none for the run itself"


def test_status_is_content_after_a_run(checkout: DemoCheckout, reports: list[dict[str, Any]]) -> None:
    assert reports
    status = checkout.play("status", "-e", "strict=true")
    assert status.returncode == 0, status.stdout


def test_no_password_of_the_platform_is_in_the_ledger_or_in_a_report(
    checkout: DemoCheckout, reports: list[dict[str, Any]]
) -> None:
    assert reports
    secrets = [path.read_bytes().strip() for path in (checkout.demo / "secrets").iterdir()]
    assert secrets
    kept = [checkout.demo / "ledger.db", *(checkout.demo / "reports/latest").iterdir()]
    for path in kept:
        content = path.read_bytes()
        assert not any(secret in content for secret in secrets), path
