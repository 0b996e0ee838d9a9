"""Rotation by the real logrotate of logs that real processes write."""

from __future__ import annotations

import gzip
import os
import resource
import time
from pathlib import Path

import pytest
from support.logs import Rotation, hup, needs_logrotate, writer
from support.modules import checks_by_name

pytestmark = needs_logrotate


@pytest.fixture
def rotation(tmp_path: Path) -> Rotation:
    return Rotation(tmp_path)


def test_a_large_log_is_rotated_and_a_second_run_changes_nothing(rotation: Rotation) -> None:
    large, small = rotation.log("large.log"), rotation.log("small.log", 10)
    inode = large.stat().st_ino
    shown = rotation.run({})
    assert not shown["failed"] and shown["changed"]
    assert large.stat().st_size == 0
    assert Path(f"{large}.1").stat().st_ino == inode
    assert not Path(f"{small}.1").exists()
    assert shown["metrics"]["rotated_files"] == {"value": 1, "unit": "count"}
    assert shown["metrics"]["log_bytes_before"]["value"] - shown["metrics"]["log_bytes_after"]["value"] == 5000
    assert {check["status"] for check in shown["checks"]} == {"passed"}

    again = rotation.run({})
    assert not again["failed"] and not again["changed"] and again["changes"] == []
    assert checks_by_name(again)["logrotate run"]["observed"] == "nothing due"


def test_check_mode_says_what_would_rotate_and_touches_nothing(rotation: Rotation) -> None:
    log = rotation.log("large.log")
    shown = rotation.run({}, check=True)
    assert shown["changed"] and not shown["failed"]
    assert {change["kind"] for change in shown["changes"]} == {"file", "logs"}
    assert log.stat().st_size == 5000 and not rotation.directory.exists()
    assert "size 1024" in shown["diff"][0]["after"]


def test_the_configuration_is_rewritten_only_when_it_differs(rotation: Rotation) -> None:
    rotation.log("small.log", 10)
    rotation.run({})
    shown = rotation.run({"keep": 3})
    (change,) = shown["changes"]
    assert change["kind"] == "file" and "rotate 7" in change["before"] and "rotate 3" in change["after"]
    assert (rotation.directory / "logrotate.conf").stat().st_mode & 0o777 == 0o600
    assert not rotation.run({"keep": 3})["changed"]


def test_a_writer_that_reopens_goes_on_in_the_new_log(rotation: Rotation) -> None:
    log = rotation.log("app.log")
    with writer(log) as pid_file:
        shown = rotation.run({"postrotate": hup(pid_file)})
        checks = checks_by_name(shown)
        assert not shown["failed"]
        assert checks["writers of app"]["observed"] == "none; 1 process with a live log open"
        assert checks["postrotate of app"]["status"] == "passed"
        size = log.stat().st_size
        deadline = time.monotonic() + 60
        while log.stat().st_size <= size:
            assert time.monotonic() < deadline, "the writer does not go on in the new log"
            time.sleep(0.01)


def test_a_new_log_with_a_frequency_is_noted_first_and_rotates_when_its_time_has_come(rotation: Rotation) -> None:
    log = rotation.log("app.log")
    shown = rotation.run({"frequency": "daily"})
    assert not shown["failed"] and shown["changed"]
    said = checks_by_name(shown)["rotation of app"]["observed"]
    assert said == "1 new noted, first rotation due tomorrow; nothing due now"
    assert not rotation.run({"frequency": "daily"})["changed"]
    rotation.state_file.unlink()
    rotation.date_of(log, days_ago=2)
    shown = rotation.run({"frequency": "daily"})
    assert shown["metrics"]["rotated_files"]["value"] == 1


def test_rotated_files_are_compressed_read_to_the_end_and_limited_in_number(rotation: Rotation) -> None:
    policy = {"keep": 2, "delay_compress": False}
    for size in (5000, 6000, 7000):
        log = rotation.log("app.log", size)
        shown = rotation.run(policy)
        assert checks_by_name(shown)["compressed files of app"]["observed"].startswith("1 made")
    assert len(gzip.decompress(Path(f"{log}.1.gz").read_bytes())) == 7000
    assert sorted(path.name for path in rotation.logs.iterdir()) == ["app.log", "app.log.1.gz", "app.log.2.gz"]


def test_delayed_compression_is_verified_when_it_happens(rotation: Rotation) -> None:
    rotation.log("app.log")
    assert "compressed files of app" not in checks_by_name(rotation.run({}))
    rotation.log("app.log", 6000)
    assert checks_by_name(rotation.run({}))["compressed files of app"]["status"] == "passed"


def test_rotated_files_beyond_a_lowered_limit_are_named(rotation: Rotation) -> None:
    rotation.log("app.log")
    for number in range(1, 6):
        Path(f"{rotation.logs}/app.log.{number}").write_text("old")
    check = checks_by_name(rotation.run({"keep": 2, "compress": False}))["rotated files of app"]
    assert check["status"] == "warned" and "app.log.5" in check["observed"]


def test_copy_truncate_works_and_is_a_warning_with_its_measured_loss(rotation: Rotation) -> None:
    log = rotation.log("app.log", 50_000)
    inode = log.stat().st_ino
    with writer(log):
        shown = rotation.run({"copy_truncate": True, "max_bytes": "40KiB"})
    assert not shown["failed"] and log.stat().st_ino == inode and log.stat().st_size < 50_000
    check = checks_by_name(shown)["copy_truncate of app"]
    assert check["status"] == "warned" and check["evidence"]["lost_lines_at_500_MB"] == 280


def test_a_growing_log_that_nothing_covers_is_a_warning(rotation: Rotation) -> None:
    rotation.log("app.log")
    stray, resting = rotation.log("stray_log"), rotation.log("resting_log")
    os.utime(resting, (1e9, 1e9))
    check = checks_by_name(rotation.run({}, audit_roots=[str(rotation.logs)]))[f"coverage of {rotation.logs}"]
    assert check["status"] == "warned" and check["evidence"]["uncovered_growing"] == [str(stray)]
    assert check["evidence"]["uncovered_resting"] == 1
    with resting.open("a") as stream:
        stream.write("more")
    os.utime(resting, (1e9, 1e9))
    ignored = rotation.run({}, audit_roots=[str(rotation.logs)], ignore=["*/stray_log"])
    assert checks_by_name(ignored)[f"coverage of {rotation.logs}"]["evidence"]["uncovered_growing"] == [str(resting)]


def test_what_the_distribution_rotates_is_covered_and_twice_is_a_warning(rotation: Rotation, tmp_path: Path) -> None:
    log = rotation.log("app.log")
    rotation.log("other.log")
    included = tmp_path / "logrotate.d"
    included.mkdir()
    system = tmp_path / "logrotate.conf"
    system.write_text(f"weekly\ninclude {included}\n")
    (included / "other").write_text(f"{rotation.logs}/other.log {{\n monthly\n}}\n")
    only_app = {"paths": [str(log)]}
    options = {"audit_roots": [str(rotation.logs)], "system_config": str(system)}
    check = checks_by_name(rotation.run(only_app, **options))[f"coverage of {rotation.logs}"]
    assert check["status"] == "passed", check
    (included / "app").write_text(f"'{log}' {{\n monthly\n}}\n")
    check = checks_by_name(rotation.run(only_app, **options))[f"coverage of {rotation.logs}"]
    assert check["status"] == "warned" and "too: " + str(log) in check["observed"]


HOSTILE = ("a b.log", 'q"uote.log', "it's.log", "new\nline.log", "st*r.log", "br[x].log", "back\\slash.log", "{x}.log",
           "$(id).log", "error\nerror: fake.log", "r\rerror: fake.log", "-d.log", "bad\udcff.log", "é.log")  # fmt: skip


def test_logs_with_hostile_names_are_rotated_and_shown_harmlessly(rotation: Rotation) -> None:
    for name in HOSTILE:
        rotation.log(name)
    shown = rotation.run({"postrotate": [{"command": ["true"]}], "shared_scripts": False})
    assert shown["metrics"]["rotated_files"]["value"] == len(HOSTILE)
    assert not shown["failed"], shown["msg"]
    assert all(Path(f"{rotation.logs}/{name}.1").stat().st_size == 5000 for name in HOSTILE)
    assert not rotation.run({"postrotate": [{"command": ["true"]}], "shared_scripts": False})["changed"]


def test_a_path_with_quotes_and_spaces_names_exactly_that_file(rotation: Rotation) -> None:
    log, other = rotation.log('it\'s "so".log'), rotation.log("so.log")
    shown = rotation.run({"paths": [str(log)]})
    assert shown["metrics"]["rotated_files"]["value"] == 1 and not shown["failed"]
    assert Path(f"{log}.1").exists() and not Path(f"{other}.1").exists()


def test_commands_get_their_arguments_as_they_are(rotation: Rotation, tmp_path: Path) -> None:
    rotation.log("app.log")
    witness = tmp_path / 'it\'s $(here); "ok"'
    shown = rotation.run({"postrotate": [{"command": ["touch", str(witness)]}]})
    assert not shown["failed"] and witness.exists()


def test_growth_is_known_from_the_second_run_on(rotation: Rotation) -> None:
    log = rotation.log("app.log", 100)
    assert "log_growth_bytes_per_day_app" not in rotation.run({})["metrics"]
    memory = rotation.directory / "memory.json"
    text = memory.read_text()
    started = time.time() - 86400
    memory.write_text(text.replace(text.split('"at": ')[1].split(",")[0], str(started)))
    with log.open("a") as stream:
        stream.write("x" * 400)
    growth = rotation.run({})["metrics"]["log_growth_bytes_per_day_app"]["value"]
    assert 395 <= growth <= 401


def test_nothing_to_do_without_policies_but_the_audit_is_made(rotation: Rotation) -> None:
    rotation.log("stray.log")
    shown = rotation.run(audit_roots=[str(rotation.logs)])
    assert not shown["changed"]
    assert checks_by_name(shown)[f"coverage of {rotation.logs}"]["status"] == "warned"


def test_two_thousand_logs_are_audited_in_two_seconds(rotation: Rotation) -> None:
    for number in range(2000):
        (rotation.logs / f"log{number}.log").write_text("x")
    rotation.run({}, audit_roots=[str(rotation.logs)])
    began = cpu_of_children()
    shown = rotation.run({}, audit_roots=[str(rotation.logs)])
    seconds = cpu_of_children() - began
    print(f"2,000 logs audited in {shown['module_seconds']:.2f} s, {seconds:.2f} s of CPU with the start of Python")
    assert not shown["changed"] and not shown["failed"]
    assert seconds < 2


def cpu_of_children() -> float:
    """What a module took, however busy others keep the machine."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
