"""The frame that activities run in: what runs where, in which order, and what is recorded of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.frame import Frame

SHOWN = {"ANSIBLE_STDOUT_CALLBACK": "wellkept.maintenance.progress"}
DAILY = {"cadence": "daily", "hosts": "all", "team": "Operations"}


def make_frame(directory: Path, variables: dict[str, Any] | None = None, **hosts: dict[str, Any]) -> Frame:
    activities = {
        "sample_first": DAILY,
        "sample_second": {**DAILY, "requires": {"sample_first": "1d"}},
        "sample_third": DAILY,
        "sample_weekly": {**DAILY, "cadence": "weekly"},
    }
    return Frame(directory, activities, hosts or {"h1": {}, "h2": {}}, variables or {})


def executed(frame: Frame) -> set[str]:
    return set(frame.executions())


@pytest.fixture
def frame(tmp_path: Path) -> Frame:
    return make_frame(tmp_path)


def test_daily_carries_out_what_is_daily_on_every_host_with_one_module_execution_each(frame: Frame) -> None:
    done = frame.play("daily")
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(frame.executions()) == sorted(
        f"{activity} on {host}"
        for activity in ("sample_first", "sample_second", "sample_third")
        for host in ("h1", "h2")
    )
    assert set(frame.outcomes().values()) == {"passed"}
    run = frame.ledger.latest_run()
    assert run and (run["state"], run["verdict"], run["cadence"]) == ("closed", "passed", "daily")


def test_moving_an_activity_to_another_cadence_is_one_line(frame: Frame) -> None:
    frame.variables["maintenance_plan"] = {"sample_third": {"cadence": "weekly"}}
    frame.write_inventory()
    assert frame.play("weekly").returncode == 0
    assert executed(frame) == {
        f"{name} on {host}" for name in ("sample_third", "sample_weekly") for host in ("h1", "h2")
    }


def test_a_failed_activity_spares_the_others_but_not_those_that_require_it(tmp_path: Path) -> None:
    frame = make_frame(tmp_path, h1={"sample_first_behaviour": "fail"}, h2={})
    done = frame.play("daily")
    assert done.returncode != 0
    assert frame.outcomes() == {
        ("h1", "sample_first"): "failed",
        ("h1", "sample_second"): "skipped",
        ("h1", "sample_third"): "passed",
        ("h2", "sample_first"): "passed",
        ("h2", "sample_second"): "passed",
        ("h2", "sample_third"): "passed",
    }
    skipped = next(
        document["data"]
        for document in frame.ledger.results_of(frame.ledger.latest_run()["id"])  # type: ignore[index]
        if document["subject"] == "h1/sample_second"
    )
    assert skipped["reason"] == "it requires sample_first, and it failed on h1 in this run"


@pytest.mark.parametrize(
    ("behaviour", "outcome", "words"),
    [
        ("die", "failed", "sample_first: Carry out sample_first"),
        ("raise", "failed", "the module has a defect"),
        ("silent", "failed", "at least one check"),
        ("unserialisable metric", "failed", "'large' is not of type 'number'"),
        ("{{ 1 / 0 }}", "failed", "division by zero"),
        ("warn", "warned", "the sample"),
        ("skip", "skipped", "apt-get install tool"),
    ],
)
def test_every_way_in_which_a_module_can_end_is_recorded(
    tmp_path: Path, behaviour: str, outcome: str, words: str
) -> None:
    frame = make_frame(tmp_path, h1={"sample_first_behaviour": behaviour})
    done = frame.play("daily", "--tags", "sample_first,sample_third")
    assert frame.outcomes() == {("h1", "sample_first"): outcome, ("h1", "sample_third"): "passed"}
    assert (done.returncode != 0) == (outcome == "failed")
    documents = frame.ledger.results_of(frame.ledger.latest_run()["id"])  # type: ignore[index]
    assert words in json.dumps(documents)


def test_an_unreachable_host_gets_a_failed_result_for_all_that_was_due_and_is_tried_once(tmp_path: Path) -> None:
    gone = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
    frame = make_frame(tmp_path, h1={}, h2=gone)
    done = frame.play("daily")
    assert done.returncode != 0
    outcomes = frame.outcomes()
    assert {outcomes["h2", name] for name in ("sample_first", "sample_second", "sample_third")} == {"failed"}
    assert {outcomes["h1", name] for name in ("sample_first", "sample_second", "sample_third")} == {"passed"}
    assert done.stdout.count("UNREACHABLE!") == 1


def test_check_mode_records_results_that_are_no_evidence(frame: Frame) -> None:
    assert frame.play("daily", "--check").returncode == 0
    run = frame.ledger.latest_run()
    assert run and run["check_mode"] is True
    assert frame.ledger.latest_results(good=True) == {}
    assert frame.ledger.latest_results() == {}


def test_limit_restricts_the_run_to_those_hosts(frame: Frame) -> None:
    assert frame.play("daily", "--limit", "h2").returncode == 0
    assert {host for host, _activity in frame.outcomes()} == {"h2"}


def test_a_plan_that_holds_for_some_hosts_alone_is_refused(frame: Frame) -> None:
    """Else it would hold or not as the first host of a run has it: with --limit another plan than without."""
    frame.hosts = {"h1": {}, "h2": {"maintenance_plan": {"sample_third": {"cadence": "weekly"}}}}
    frame.write_inventory()
    for limit in ("h1", "h2"):
        refused = frame.play("daily", "--limit", limit)
        assert refused.returncode != 0
        assert "maintenance_plan: h2 has another one than h1; state it once, in group_vars/all" in refused.stdout
    assert frame.executions() == []
    everywhere = frame.play("daily", "--tags", "sample_third", "-e", '{"maintenance_plan": {}}')
    assert everywhere.returncode == 0, everywhere.stdout


def test_an_inventory_without_hosts_is_no_success(frame: Frame) -> None:
    """A scheduler with a wrong path after -i would else be told every night that all is well."""
    frame.hosts = {}
    frame.write_inventory()
    for playbook in ("daily", "activities/sample_first", "status"):
        done = frame.play(playbook)
        assert done.returncode != 0
        assert "The inventory names no host" in done.stdout + done.stderr


def test_tags_select_activities_and_a_misspelt_one_is_refused(frame: Frame) -> None:
    assert frame.play("daily", "--tags", "sample_third").returncode == 0
    assert {activity for _host, activity in frame.outcomes()} == {"sample_third"}
    assert frame.play("daily", "--skip-tags", "sample_third").returncode == 0
    assert {activity for _host, activity in frame.outcomes()} == {"sample_first", "sample_second"}
    refused = frame.play("daily", "--tags", "sample_thrid")
    assert refused.returncode != 0
    assert "did you mean sample_third?" in refused.stdout


def test_an_activity_by_hand_opens_and_closes_its_own_run_whatever_its_cadence(frame: Frame) -> None:
    assert frame.play("activities/sample_weekly").returncode == 0
    assert frame.outcomes() == {("h1", "sample_weekly"): "passed", ("h2", "sample_weekly"): "passed"}
    run = frame.ledger.latest_run()
    assert run and run["cadence"] == "on_demand"


def test_a_run_in_which_nothing_is_due_says_so(frame: Frame) -> None:
    done = frame.play("yearly", env=SHOWN)
    assert done.returncode == 0
    assert "Nothing was due in this yearly run." in done.stdout


def test_a_bad_plan_is_refused_with_all_its_problems_before_anything_runs(frame: Frame) -> None:
    frame.variables["maintenance_plan"] = {
        "sample_frist": {},
        "sample_first": {"cadence": "dayly"},
        "sample_third": {"hosts": "no_such_group"},
    }
    frame.write_inventory()
    done = frame.play("daily")
    assert done.returncode != 0
    assert "did you mean sample_first?" in done.stdout
    assert "did you mean daily?" in done.stdout
    assert frame.executions() == []


def test_disruptive_work_waits_for_an_approval_and_a_window(frame: Frame) -> None:
    frame.variables["maintenance_plan"] = {"sample_third": {"disruptive": True, "approval": "required"}}
    frame.write_inventory()
    frame.play("daily", "--tags", "sample_third")
    assert set(frame.outcomes().values()) == {"skipped"}
    frame.play("daily", "--tags", "sample_third", "-e", "approved_by=Ada", "-e", "change=CHG-1")
    assert set(frame.outcomes().values()) == {"skipped"}, "there is no window"
    every_day = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
    frame.variables["maintenance_windows"] = [
        {"name": "first half", "weekday": every_day, "start": "00:00", "end": "12:00"},
        {"name": "second half", "weekday": every_day, "start": "12:00", "end": "00:00"},
    ]
    frame.write_inventory()
    frame.play("daily", "--tags", "sample_third", "-e", "approved_by=Ada", "-e", "change=CHG-1")
    assert set(frame.outcomes().values()) == {"passed"}
    run = frame.ledger.latest_run()
    assert run and (run["approved_by"], run["change"]) == ("Ada", "CHG-1")


def test_status_names_what_is_overdue_and_fails_when_strict(frame: Frame) -> None:
    before = frame.play("status", "-e", "strict=true", env=SHOWN)
    assert before.returncode != 0
    assert "OVERDUE" in before.stdout
    frame.play("daily")
    after = frame.play("status", "-e", "strict=true", env=SHOWN)
    assert after.returncode == 0, after.stdout
    assert "sample_weekly" in after.stdout
    assert "never" in after.stdout


def test_every_run_writes_a_report_and_report_yml_writes_it_again(frame: Frame) -> None:
    frame.play("daily")
    reports = frame.directory / "reports"
    latest = reports / "latest"
    names = {"report.html", "report.md", "report.json", "junit.xml", "wellkept.prom"}
    assert names <= {path.name for path in latest.iterdir()}
    (latest / "report.html").unlink()
    assert frame.play("report").returncode == 0
    assert (latest / "report.html").exists()


def test_the_secrets_of_arguments_never_reach_the_ledger(tmp_path: Path) -> None:
    frame = make_frame(tmp_path, {"login_password": "hunter2-hunter2"}, h1={})
    frame.play("daily")
    assert b"hunter2-hunter2" not in frame.ledger_path.read_bytes()


def test_status_says_of_a_skipped_activity_that_it_was_skipped(tmp_path: Path) -> None:
    frame = make_frame(tmp_path, h1={"sample_first_behaviour": "skip"})
    frame.play("daily", "--tags", "sample_first")
    shown = frame.play("status", env=SHOWN).stdout
    line = next(line for line in shown.splitlines() if line.startswith("sample_first"))
    assert "skipped" in line
    assert "never" not in line
