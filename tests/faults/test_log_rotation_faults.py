"""Rotations that go wrong while logrotate's exit status or its state file say that all is well."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from support.logs import Rotation, hup, needs_logrotate, writer
from support.modules import checks_by_name
from support.unprivileged import give_to_nobody, run_module_without_root

pytestmark = needs_logrotate


@pytest.fixture
def rotation(tmp_path: Path) -> Rotation:
    return Rotation(tmp_path)


def test_a_writer_that_ignores_the_signal_is_found_now_and_in_the_next_run(rotation: Rotation) -> None:
    log = rotation.log("app.log")
    with writer(log, "ignores") as pid_file:
        policy = {"postrotate": hup(pid_file)}
        for _run in range(2):
            shown = rotation.run(policy)
            check = checks_by_name(shown)["writers of app"]
            assert shown["failed"] and check["status"] == "failed"
            assert f"pid {pid_file.read_text().strip()}" in check["observed"] and "app.log.1" in check["observed"]


def test_a_writer_of_a_log_that_was_compressed_away_is_found(rotation: Rotation) -> None:
    log = rotation.log("app.log")
    with writer(log, "ignores") as pid_file:
        shown = rotation.run({"postrotate": hup(pid_file), "delay_compress": False})
        check = checks_by_name(shown)["writers of app"]
        assert check["status"] == "failed" and "removed" in check["observed"]
        assert check["evidence"]["bytes_held_by_removed_logs"] >= 5000
        audit = checks_by_name(rotation.run({"paths": [f"{rotation.logs}/x.log"], "missing_ok": True},
                                            audit_roots=[str(rotation.logs)]))  # fmt: skip
        assert audit[f"removed logs of {rotation.logs}"]["status"] == "warned"


def test_a_silent_holder_that_nobody_told_is_a_warning(rotation: Rotation) -> None:
    log = rotation.log("app.log")
    with writer(log, "silent"):
        shown = rotation.run({})
    assert not shown["failed"]
    assert checks_by_name(shown)["writers of app"]["status"] == "warned"


def test_a_writer_that_closes_its_log_and_opens_no_other_is_a_warning(rotation: Rotation) -> None:
    log = rotation.log("app.log")
    with writer(log, "closes") as pid_file:
        check = checks_by_name(rotation.run({"postrotate": hup(pid_file)}))["writers of app"]
    assert check["status"] == "warned" and "opened no new one" in check["observed"]


def test_a_writer_that_does_not_append_fails_copy_truncate(rotation: Rotation) -> None:
    log = rotation.log("app.log")
    with writer(log, "overwrites"):
        shown = rotation.run({"copy_truncate": True})
    check = checks_by_name(shown)["copy_truncate of app"]
    assert shown["failed"] and check["status"] == "failed" and "O_APPEND" in check["observed"]


def test_a_failing_postrotate_is_found_until_it_succeeds(rotation: Rotation) -> None:
    rotation.log("app.log")
    bad = {"postrotate": [{"command": ["sh", "-c", "echo no such service; exit 7"]}]}
    shown = rotation.run(bad)
    checks = checks_by_name(shown)
    assert shown["failed"]
    assert checks["postrotate of app"]["observed"] == "exit status 7: no such service"
    assert checks["logrotate run"]["status"] == "failed"
    assert checks["rotation of app"]["status"] == "passed"
    # Nothing is due now and the state file claims success; the failure is not forgotten.
    again = rotation.run(bad)
    assert again["failed"] and checks_by_name(again)["postrotate of app"]["status"] == "failed"
    rotation.log("app.log")
    assert not rotation.run({"postrotate": [{"command": ["true"]}]})["failed"]


def test_steps_after_a_failed_one_do_not_run(rotation: Rotation, tmp_path: Path) -> None:
    rotation.log("app.log")
    witness = tmp_path / "witness"
    rotation.run({"postrotate": [{"command": ["false"]}, {"command": ["touch", str(witness)]}]})
    assert not witness.exists()


def test_an_unknown_directive_fails_although_logrotate_ends_with_0(rotation: Rotation) -> None:
    rotation.log("app.log")
    shown = rotation.run({"extra_directives": ["frobnicate 3"]})
    checks = checks_by_name(shown)
    assert shown["failed"]
    assert "unknown option 'frobnicate'" in checks["logrotate configuration"]["observed"]
    assert "exit status 0: " in checks["logrotate run"]["observed"]
    assert checks["logrotate run"]["status"] == "failed"


def test_an_unknown_user_is_named_and_nothing_rotates(rotation: Rotation) -> None:
    log = rotation.log("app.log")
    shown = rotation.run({"create": {"mode": "0640", "owner": "nobody-of-that-name", "group": "nogroup"}})
    assert shown["failed"] and log.stat().st_size == 5000
    assert "nobody-of-that-name" in checks_by_name(shown)["logrotate configuration"]["observed"]
    assert checks_by_name(shown)["size of logs of app"]["status"] == "failed"


def test_a_failed_rename_is_found_and_is_due_again_although_the_state_says_done(rotation: Rotation) -> None:
    # With its number the name is longer than a file name may be: that stops root as well.
    log = rotation.log("n" * 250 + ".log")
    rotation.date_of(log, days_ago=3)
    before = rotation.state_file.read_text()
    for _run in range(2):
        shown = rotation.run({"frequency": "daily"})
        checks = checks_by_name(shown)
        assert shown["failed"] and checks["rotation of app"]["status"] == "failed"
        assert "same file" in checks["rotation of app"]["observed"]
        assert "shorter name" in checks["logrotate run"]["advice"]
        assert sorted(rotation.state_file.read_text().splitlines()) == sorted(before.splitlines())
        assert shown["metrics"]["rotated_files"]["value"] == 0


def test_a_state_that_claims_a_rotation_which_left_nothing_behind_is_doubted(rotation: Rotation) -> None:
    log = rotation.log("app.log", 10)
    rotation.directory.mkdir(parents=True)
    rotation.directory.chmod(0o700)
    rotation.state_file.write_text(f'logrotate state -- version 2\n"{log}" 2026-11-19-9:26:1\n')
    check = checks_by_name(rotation.run({}))["last rotations of app"]
    assert check["status"] == "warned" and "app.log at 2026-11-19 09:26:01" in check["observed"]


def test_an_unwritable_log_directory_is_found_and_explained() -> None:
    with tempfile.TemporaryDirectory() as base:
        directory = Path(base)
        directory.chmod(0o755)
        rotation = Rotation(directory)
        log = rotation.log("app.log")
        give_to_nobody(directory, rotation.logs, log)
        rotation.logs.chmod(0o555)
        shown = run_module_without_root("log_rotation", rotation.options({}))
        rotation.logs.chmod(0o755)
    checks = checks_by_name(shown)
    assert shown["failed"] and checks["rotation of app"]["status"] == "failed"
    assert "Permission denied" in checks["logrotate run"]["observed"]
    assert "write permission" in checks["logrotate run"]["advice"]


def test_a_log_directory_replaced_by_a_file_fails(rotation: Rotation) -> None:
    shutil.rmtree(rotation.logs)
    rotation.logs.write_text("not a directory")
    shown = rotation.run({})
    assert shown["failed"] and checks_by_name(shown)["logs of app"]["status"] == "failed"


def test_a_missing_log_fails_unless_that_is_in_order(rotation: Rotation) -> None:
    shown = rotation.run({})
    assert shown["failed"] and "missing_ok" in checks_by_name(shown)["logs of app"]["advice"]
    assert not rotation.run({"missing_ok": True})["failed"]


@pytest.mark.skipif(os.geteuid() != 0, reason="logrotate distrusts directories only when root rotates")
def test_a_directory_that_others_may_write_to_is_refused_without_su_and_explained(rotation: Rotation) -> None:
    rotation.log("app.log")
    rotation.logs.chmod(0o777)
    shown = rotation.run({})
    check = checks_by_name(shown)["logrotate configuration"]
    assert shown["failed"] and "insecure permissions" in check["observed"] and "`su`" in check["advice"]
    assert not rotation.run({"su": {"user": "root", "group": "root"}})["failed"]


@pytest.mark.parametrize("damage", ["garbage", "cut", "binary", "empty line", "emptied"])
def test_a_damaged_state_is_moved_aside_and_what_is_due_rotates_in_the_same_run(
    rotation: Rotation, damage: str
) -> None:
    log = rotation.log("app.log")
    rotation.date_of(log, days_ago=2)
    rotation.run({"frequency": "weekly"})
    text = rotation.state_file.read_bytes()
    broken = {
        "garbage": b"garbage\n",
        "cut": text[: len(text) - 9],
        "binary": os.urandom(300),
        "empty line": text + b"foo bar\n",
        "emptied": b"\n",
    }[damage]
    rotation.state_file.write_bytes(broken)
    shown = rotation.run({"frequency": "daily"})
    check = checks_by_name(shown)["logrotate state file"]
    assert check["status"] == "warned" and not shown["failed"], shown.get("msg")
    assert shown["metrics"]["rotated_files"]["value"] == 1
    (aside,) = rotation.directory.glob("state.damaged-*")
    assert aside.read_bytes() == broken
    again = rotation.run({"frequency": "daily"})
    assert not again["changed"] and checks_by_name(again)["logrotate state file"]["status"] == "passed"


def test_a_lock_that_another_logrotate_holds_is_told_and_nothing_is_claimed(rotation: Rotation) -> None:
    log = rotation.log("app.log")
    rotation.run({"max_bytes": "1MiB"})
    with rotation.state_file.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        shown = rotation.run({})
    assert shown["failed"] and "holds its lock (exit status 3)" in shown["msg"]
    assert log.stat().st_size == 5000
    assert not rotation.run({})["failed"] and log.stat().st_size == 0


def test_links_are_left_alone_and_said_so(rotation: Rotation, tmp_path: Path) -> None:
    target = tmp_path / "shadow"
    target.write_text("s" * 5000)
    (rotation.logs / "link.log").symlink_to(target)
    os.link(target, rotation.logs / "hard.log")
    shown = rotation.run({"max_bytes": "1MiB"})
    assert checks_by_name(shown)["logs of app"]["status"] == "warned"
    assert target.stat().st_size == 5000


def test_a_pattern_that_matches_its_own_rotated_files_fails(rotation: Rotation) -> None:
    rotation.log("app.log")
    everything = {"paths": [f"{rotation.logs}/*"]}
    rotation.run(everything)
    check = checks_by_name(rotation.run(everything))["logs of app"]
    assert check["status"] == "failed" and "app.log.1" in check["observed"]


def test_two_policies_for_one_log_fail(rotation: Rotation) -> None:
    log = rotation.log("app.log")
    shown = rotation.run({"name": "one"}, {"name": "two", "paths": [str(log)]})
    assert shown["failed"]
    assert checks_by_name(shown)["logs of two"]["observed"].startswith("another policy names them too")


def test_a_configuration_directory_that_others_may_write_to_is_refused(rotation: Rotation) -> None:
    log = rotation.log("app.log")
    rotation.directory.mkdir(parents=True)
    rotation.directory.chmod(0o777)
    shown = rotation.run({})
    assert shown["failed"] and "nobody else may write" in shown["msg"] and log.stat().st_size == 5000


def test_logrotate_that_is_missing_is_a_skip_with_the_command(rotation: Rotation) -> None:
    shown = rotation.run({}, program="no-such-logrotate")
    assert shown["skipped"] and shown["msg"] == "logrotate is missing: apt-get install logrotate"
    assert shown["checks"] == []


@pytest.mark.parametrize("option", ["growing_within", "reopen_within", "timeout"])
def test_a_bad_duration_is_refused_by_name(rotation: Rotation, option: str) -> None:
    shown = rotation.run({}, **{option: "soon"})
    assert shown["failed"] and option in shown["msg"] and "'soon'" in shown["msg"]
