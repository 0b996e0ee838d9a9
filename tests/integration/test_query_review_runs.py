"""The activity query_review as an operator runs it: what one run leaves in the ledger, the next one compares with."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from support.frame import Frame
from support.modules import ROOT
from support.postgresql import PostgresServer, postgres_server
from support.query_review import EAGER, SETTINGS, Reviewer, prepare

ACTIVITY = "query_review"
MODULE = "postgresql_query_review"


class ReviewFrame(Frame):
    """The frame with the real role of the activity instead of a sample's."""

    def _write_role(self, activity: str, entry: dict[str, Any]) -> None:
        shutil.copytree(ROOT / "roles" / activity, self.checkout / "roles" / activity)

    def _grant_defaults_to_samples(self) -> None:
        super()._grant_defaults_to_samples()
        runtime = self.checkout / "meta/runtime.yml"
        document = yaml.safe_load(runtime.read_text())
        document["action_groups"]["activities"] = [MODULE]
        runtime.write_text(yaml.safe_dump(document))

    def last(self) -> dict[str, Any]:
        """What the last run recorded of the review on h1."""
        run = self.ledger.latest_run()
        assert run
        (document,) = self.ledger.results_of(run["id"])
        data: dict[str, Any] = document["data"]
        return data


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server(SETTINGS) as server:
        prepare(server)
        yield server


@pytest.fixture(scope="module")
def runs(server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A rehearsal before anything was recorded, a run, and a run after an index was dropped."""
    directory = tmp_path_factory.mktemp("frame")
    login = {f"database_{name}": value for name, value in server.login().items()}
    eager = {f"{ACTIVITY}_{name}": value for name, value in EAGER.items()}
    entry = yaml.safe_load((ROOT / f"roles/{ACTIVITY}/meta/plan.yml").read_text())
    frame = ReviewFrame(directory, {ACTIVITY: entry}, {"h1": {}, "h2": {}}, {**login, **eager})
    frame.variables["maintenance_plan"] = {ACTIVITY: {"hosts": "all"}}
    frame.write_inventory()
    reviewer = Reviewer(server, directory)
    found: dict[str, Any] = {"frame": frame}

    def play(name: str, *options: str) -> subprocess.CompletedProcess[str]:
        done = frame.play(f"activities/{ACTIVITY}", "--limit", "h1", *options)
        assert done.returncode == 0, done.stdout + done.stderr
        found[name] = frame.last()
        return done

    play("rehearsal", "--check")
    reviewer.look_up(60)
    play("first")
    server.sql("DROP INDEX student_name", "learning")
    reviewer.look_up(60)
    play("second")
    yield found


def slower(data: dict[str, Any]) -> list[dict[str, Any]]:
    named = [check for check in data["checks"] if check["name"].startswith("speed of statement ")]
    return [check for check in named if "grade FROM student" in check["observed"]]


def test_a_rehearsal_with_nothing_to_compare_with_changes_nothing(runs: dict[str, Any]) -> None:
    assert runs["rehearsal"]["run"]["check_mode"]
    assert [change["after"] for change in runs["rehearsal"]["changes"]] == ["would be installed"]
    assert runs["first"]["changed"], "the extension was still to be installed"


def test_the_second_run_finds_what_became_slower_in_between(runs: dict[str, Any]) -> None:
    assert slower(runs["first"]) == []
    assert "speed of statements" not in {check["name"] for check in runs["first"]["checks"]}
    (check,) = slower(runs["second"])
    assert runs["second"]["outcome"] == "warned"
    assert check["evidence"]["calls"] == 60, "the calls before the last review do not count"
    assert check["evidence"]["now_seconds"] > 2 * check["evidence"]["before_seconds"]
    assert " ms → " in check["observed"]
    assert not runs["second"]["changed"]


def test_what_is_kept_for_the_next_review_is_small(runs: dict[str, Any]) -> None:
    assert len(json.dumps(runs["second"])) < 40_000


def test_the_next_run_is_told_what_the_report_and_the_status_say(runs: dict[str, Any]) -> None:
    frame: ReviewFrame = runs["frame"]
    assert frame.play("status").returncode == 0
    report = (frame.directory / "reports/latest/report.html").read_text()
    assert "SELECT grade FROM student WHERE name = $1" in report
