"""Runs that are refused, interrupted or killed: nothing is touched unrecorded, and the next run says what happened."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
from pathlib import Path

import pytest
from support.frame import Frame
from support.waiting import wait_until

DAILY = {"cadence": "daily", "hosts": "all"}


@pytest.fixture
def frame(tmp_path: Path) -> Frame:
    return Frame(tmp_path, {"sample_first": DAILY, "sample_second": DAILY, "sample_third": DAILY}, {"h1": {}})


def start_hanging_in_second(frame: Frame) -> subprocess.Popen[str]:
    """A daily run that has finished sample_first and hangs in sample_second."""
    process = subprocess.Popen(
        frame.command("daily", "-e", "sample_second_behaviour=hang"),
        cwd=frame.checkout,
        env=frame.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_until(lambda: "sample_second on h1" in frame.executions())
    return process


def end_sample_left_behind(frame: Frame) -> None:
    pid = int(frame.journal.read_text().splitlines()[-1].rpartition(" ")[2])
    os.kill(pid, signal.SIGKILL)


def test_a_killed_controller_loses_no_finished_result_and_the_next_run_reports_it(frame: Frame) -> None:
    process = start_hanging_in_second(frame)
    process.kill()
    process.communicate()
    end_sample_left_behind(frame)
    dead = frame.ledger.open_runs()[0]
    assert frame.outcomes(dead["id"]) == {("h1", "sample_first"): "passed"}

    done = frame.play("daily", env={"ANSIBLE_STDOUT_CALLBACK": "wellkept.maintenance.progress"})
    assert done.returncode == 0, done.stdout
    lost = "died before its end; it left undone: sample_second on h1, sample_third on h1"
    assert f"The run of {dead['started']} {lost}" in done.stdout
    assert set(frame.outcomes().values()) == {"passed"}
    report = json.loads((frame.directory / "reports/latest/report.json").read_text())
    (interrupted,) = report["interrupted"]
    assert interrupted["run_id"] == dead["id"]
    assert interrupted["recorded"] == 1
    assert {one["activity"] for one in interrupted["missing"]} == {"sample_second", "sample_third"}
    assert frame.ledger.run(dead["id"])["state"] == "interrupted"  # type: ignore[index]
    frame.play("daily")
    again = json.loads((frame.directory / "reports/latest/report.json").read_text())
    assert again["interrupted"] == [], "it is said once"


def test_control_c_ends_the_run_as_interrupted_at_once(frame: Frame) -> None:
    process = start_hanging_in_second(frame)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=300)
    assert process.returncode != 0
    assert frame.ledger.open_runs() == []
    assert frame.ledger.interrupted_since("")[0]["state"] == "interrupted"


INTERRUPTS_ITSELF = """
import os, signal
from ansible.plugins.callback import CallbackBase

class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "interrupts_itself"

    def v2_playbook_on_task_start(self, task, is_conditional):
        if "Carry out sample_second" in task.get_name():
            os.register_at_fork(after_in_parent=self.interrupt)

    def interrupt(self):
        if not hasattr(self, "done"):
            self.done = True
            os.kill(os.getpid(), signal.SIGINT)
"""


def test_control_c_just_when_a_task_is_forked_ends_the_run_as_interrupted(frame: Frame) -> None:
    """Python ignores an exception there."""
    directory = frame.checkout / "playbooks/callback_plugins"
    directory.mkdir()
    (directory / "interrupts_itself.py").write_text(INTERRUPTS_ITSELF)
    done = frame.play("daily", "-e", "sample_second_behaviour=hang")
    assert "User interrupted execution" in done.stdout + done.stderr
    assert frame.ledger.open_runs() == []
    run = frame.ledger.interrupted_since("")[0]
    assert frame.outcomes(run["id"]) == {("h1", "sample_first"): "passed"}


def test_a_killed_worker_process_leaves_the_run_interrupted_with_its_results(frame: Frame) -> None:
    process = start_hanging_in_second(frame)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    process.communicate(timeout=300)
    end_sample_left_behind(frame)
    assert process.returncode != 0
    run = frame.ledger.interrupted_since("")[0]
    assert frame.outcomes(run["id"])["h1", "sample_first"] == "passed"


def test_a_second_run_on_the_same_host_is_told_who_is_at_work_since_when_and_touches_nothing(frame: Frame) -> None:
    first = start_hanging_in_second(frame)
    try:
        before = frame.executions()
        second = frame.play("daily")
        assert second.returncode != 0
        holder = frame.ledger.open_runs()[0]
        assert f"process {first.pid} on" in second.stdout
        assert holder["started"] in second.stdout
        assert holder["id"] in second.stdout
        assert frame.executions() == before
    finally:
        first.send_signal(signal.SIGINT)
        first.communicate(timeout=300)


def test_an_activity_that_still_runs_elsewhere_holds_its_lock_on_the_host(frame: Frame) -> None:
    """Even a run from another control node, with another ledger, meets the lock on the host."""
    first = start_hanging_in_second(frame)
    try:
        other = f"maintenance_ledger={frame.directory}/other.db"
        done = frame.play("daily", "--tags", "sample_second", "-e", other)
        assert done.returncode != 0
        assert "held by run" in done.stdout
        assert "since 20" in done.stdout
    finally:
        first.send_signal(signal.SIGINT)
        first.communicate(timeout=300)


def refused(frame: Frame, words: str) -> None:
    done = frame.play("daily")
    assert done.returncode != 0
    assert words in done.stdout + done.stderr
    assert frame.executions() == [], "no host was touched"


def test_a_run_without_the_ledger_callback_is_refused(frame: Frame) -> None:
    settings = frame.checkout / "ansible.cfg"
    settings.write_text(settings.read_text().replace("callbacks_enabled =", "# callbacks_enabled ="))
    refused(frame, "the callback wellkept.maintenance.ledger at work")


def test_a_locked_ledger_stops_the_run_before_it_touches_a_host(frame: Frame) -> None:
    assert frame.ledger
    holder = sqlite3.connect(frame.ledger_path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        refused(frame, "Another process holds the ledger")
    finally:
        holder.close()


def test_a_damaged_ledger_stops_the_run_before_it_touches_a_host(frame: Frame) -> None:
    frame.ledger_path.parent.mkdir()
    frame.ledger_path.write_bytes(b"this is no database at all " * 100)
    refused(frame, "file is not a database")


def test_a_ledger_that_cannot_be_made_stops_the_run_before_it_touches_a_host(frame: Frame) -> None:
    frame.ledger_path.parent.write_text("a file where the directory should be")
    refused(frame, "a file that can be read and written")


def test_a_read_only_ledger_stops_the_run_before_it_touches_a_host(frame: Frame) -> None:
    assert frame.ledger
    if os.geteuid() != 0:
        frame.ledger_path.chmod(0o400)
        refused(frame, "Permission denied")
        return
    if not shutil.which("unshare"):
        pytest.skip("root ignores permissions, and unshare, which could mount the ledger read-only, is missing")
    folder = str(frame.ledger_path.parent)
    mount = f'mount --bind "{folder}" "{folder}" && mount -o remount,ro,bind "{folder}" && exec "$@"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", mount, "sh", *frame.command("daily")],
        cwd=frame.checkout, env=frame.environment(), capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "Read-only file system" in done.stdout + done.stderr
    assert frame.executions() == []


def test_a_ledger_on_a_full_disk_stops_the_run_before_it_touches_a_host(frame: Frame) -> None:
    assert frame.ledger
    size = frame.ledger_path.stat().st_size
    limit = f'ulimit -f {size // 1024 + 1}; exec "$@"'
    done = subprocess.run(
        ["bash", "-c", limit, "bash", *frame.command("daily")],
        cwd=frame.checkout, env=frame.environment(), capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert frame.executions() == []


def test_results_that_are_lost_fail_the_run(frame: Frame) -> None:
    """An exception in a callback is only a warning for Ansible: the closing of the run must notice."""
    condition = "WHEN NEW.activity = 'sample_second' BEGIN SELECT RAISE(IGNORE); END"
    guard = f"CREATE TRIGGER lose BEFORE INSERT ON results {condition}"
    assert frame.ledger
    with sqlite3.connect(frame.ledger_path) as connection:
        connection.execute(guard)
    done = frame.play("daily")
    assert done.returncode != 0
    assert "sample_second on h1" in done.stdout
    assert "no result in the ledger" in done.stdout


def test_a_plan_that_breaks_in_mid_run_fails_what_follows_on_every_host_and_still_closes_the_run(
    tmp_path: Path,
) -> None:
    frame = Frame(tmp_path, {"sample_first": DAILY, "sample_second": DAILY}, {"h1": {}, "h2": {}})
    frame.variables["maintenance_freezes"] = f"{{{{ [] if not '{frame.journal}' is exists else 'broken' }}}}"
    frame.write_inventory()
    done = frame.play("daily")
    assert done.returncode != 0
    outcomes = frame.outcomes()
    assert {outcomes[host, "sample_first"] for host in ("h1", "h2")} == {"passed"}
    assert {outcomes[host, "sample_second"] for host in ("h1", "h2")} == {"failed"}


def test_a_run_in_which_no_host_can_be_reached_is_recorded_and_closed(tmp_path: Path) -> None:
    gone = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
    frame = Frame(tmp_path, {"sample_first": DAILY, "sample_second": DAILY}, {"h1": gone, "h2": gone})
    done = frame.play("daily")
    assert done.returncode != 0
    assert len(frame.outcomes()) == 4
    assert set(frame.outcomes().values()) == {"failed"}
