"""The outcome follows from the checks, and what is recorded is always valid."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.result import Part, outcome_of
from ansible_collections.wellkept.maintenance.plugins.plugin_utils.collector import Collector
from ansible_collections.wellkept.maintenance.plugins.plugin_utils.identifiers import new_id
from ansible_collections.wellkept.maintenance.plugins.plugin_utils.results import (
    Gathered,
    overall_verdict,
    result_document,
    schema_problems,
)

NOW = "2026-11-21T02:00:00.000Z"
RUN = {
    "id": new_id(), "cadence": "daily", "operator": "ada", "check_mode": False, "approved_by": "", "change": "",
    "source": "//control/wellkept", "teams": {"backup": "Operations"},
}  # fmt: skip


def part(*statuses: str) -> dict[str, Any]:
    built = Part()
    for number, status in enumerate(statuses):
        built.check(f"check {number}", status, expected="a", observed="b")
    return built.as_dict()


def document(*parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    gathered = Gathered("db1", "backup", "Operations", NOW, parts=list(parts), **more)
    return result_document(gathered, RUN, NOW, "//control/wellkept")


@pytest.mark.parametrize(
    ("statuses", "outcome"),
    [
        (["passed", "passed"], "passed"),
        (["passed", "unknown"], "warned"),
        (["warned"], "warned"),
        (["unknown", "failed", "passed"], "failed"),
        ([], "failed"),
    ],
)
def test_unknown_never_passes_and_nothing_checked_fails(statuses: list[str], outcome: str) -> None:
    assert outcome_of(part(*statuses)["checks"]) == outcome
    built = document(part(*statuses))
    assert built["data"]["outcome"] == outcome
    assert schema_problems("result.v1.json", built) == []


def test_parts_of_several_modules_are_one_result() -> None:
    built = document(part("passed"), part("warned"))
    assert len(built["data"]["checks"]) == 2
    assert built["data"]["outcome"] == "warned"


@pytest.mark.parametrize(
    "broken",
    [
        {"checks": [{"name": "x", "status": "excellent"}]},
        {"metrics": {"size": {"value": "large", "unit": "bytes"}}},
        {"artifacts": [{"path": "/b", "sha256": "short", "bytes": 1}]},
    ],
)
def test_an_invalid_part_is_recorded_as_a_failure_and_never_dropped(broken: dict[str, Any]) -> None:
    built = document({**part("passed"), **broken})
    assert built["data"]["outcome"] == "failed"
    assert schema_problems("result.v1.json", built) == []


def test_a_skip_needs_a_reason() -> None:
    built = document({**part(), "skip_reason": "logrotate is missing"})
    assert (built["data"]["outcome"], built["data"]["reason"]) == ("skipped", "logrotate is missing")
    built["data"]["reason"] = ""
    assert schema_problems("result.v1.json", built)


def test_identifiers_sort_by_time_and_are_version_7() -> None:
    ids = [new_id(milliseconds) for milliseconds in (1, 2, 1_790_000_000_000)]
    assert ids == sorted(ids)
    assert {identifier[14] for identifier in ids} == {"7"}
    assert len({new_id() for _number in range(1000)}) == 1000


def test_the_verdict_of_a_run_is_its_worst_outcome() -> None:
    assert overall_verdict(["passed", "passed"]) == "passed"
    assert overall_verdict(["passed", "skipped"]) == "warned"
    assert overall_verdict(["warned", "failed"]) == "failed"


def collector() -> Collector:
    built = Collector()
    opened = {"maintenance_run": RUN, "due": {"backup": ["db1", "db2"]}}
    built.on_answer("db1", "wellkept.maintenance.run_open", "open", opened, kind="ok")
    built.on_play_start("backup")
    return built


def test_a_failed_gate_fails_every_host_that_was_due() -> None:
    collected = collector()
    collected.on_answer("db1", "wellkept.maintenance.activity_gate", "gate", {"msg": "no ledger"}, kind="failed")
    assert {one["data"]["host"]: one["data"]["outcome"] for one in collected.finish()} == {
        "db1": "failed",
        "db2": "failed",
    }


def test_a_failed_task_that_is_no_module_of_ours_becomes_a_failed_check() -> None:
    collected = collector()
    collected.on_answer("db1", "ansible.builtin.apt", "Install a tool", {"msg": "no such package"}, kind="failed")
    (built,) = collected.finish()
    assert built["data"]["outcome"] == "failed"
    assert "no such package" in built["data"]["checks"][0]["observed"]


def test_plays_without_an_activity_record_nothing() -> None:
    collected = collector()
    collected.on_play_start(None)
    collected.on_answer("db1", "wellkept.maintenance.backup", "x", part("failed"), kind="failed")
    assert collected.finish() == []
