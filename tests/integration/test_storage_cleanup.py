"""storage_cleanup on real files."""

from __future__ import annotations

import os
import subprocess
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.open_files import InUse
from ansible_collections.wellkept.maintenance.plugins.module_utils.storage.rules import decide, read_rules
from ansible_collections.wellkept.maintenance.plugins.module_utils.storage.sweep import sweep
from support.modules import checks_by_name, run_module
from support.trees import make_file, names_in, set_age

ALLOWED = "rule r: directory may be cleaned"
CLEAN = "rule r: nothing left that should go"
OPEN = "rule r: open files are known and kept"
SPACE = "rule r: freed space agrees with what was removed"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    directory = tmp_path.resolve() / "app" / "tmp"
    directory.mkdir(parents=True)
    return directory


def clean(place: Path, *, check: bool = False, **options: Any) -> dict[str, Any]:
    rule = {"name": "r", "path": str(place), "private": True, **options}
    return run_module("storage_cleanup", {"state_dir": str(place.parents[1] / "state"), "rules": [rule]}, check=check)


def test_old_files_go_young_ones_stay_and_a_second_run_changes_nothing(place: Path) -> None:
    make_file(place / "old", age_days=8)
    make_file(place / "young", age_days=6)
    make_file(place / "deep/er/old", age_days=8)
    make_file(place / "deep/er/young", age_days=6)
    shown = clean(place, older_than="7d", recurse=True)
    assert not shown["failed"], shown["msg"]
    assert shown["changed"]
    assert names_in(place) == {"young", "deep", "deep/er", "deep/er/young"}
    assert checks_by_name(shown)[CLEAN]["status"] == "passed"
    assert "removed 2 files" in shown["changes"][0]["after"]
    assert shown["metrics"]["removed_files"] == {"value": 2, "unit": "count"}
    assert shown["metrics"]["files_in_r"] == {"value": 2, "unit": "count"}
    again = clean(place, older_than="7d", recurse=True)
    assert not again["changed"]
    assert {check["status"] for check in again["checks"]} == {"passed"}


def test_check_mode_says_what_would_go_and_touches_nothing(place: Path) -> None:
    make_file(place / "old", age_days=8)
    shown = clean(place, older_than="7d", check=True)
    assert shown["changed"]
    assert "removed 1 files" in shown["changes"][0]["after"]
    assert names_in(place) == {"old"}
    assert CLEAN not in checks_by_name(shown)


def test_without_recursion_subdirectories_are_left_alone(place: Path) -> None:
    make_file(place / "sub/old", age_days=8)
    assert not clean(place, older_than="7d", remove_empty_directories=True)["changed"]
    assert names_in(place) == {"sub", "sub/old"}


def test_only_files_that_match_a_pattern_go(place: Path) -> None:
    for name in ("a.tmp", "b.tmp", "keep.tmp", "c.txt"):
        make_file(place / name, age_days=8)
    clean(place, older_than="7d", patterns=["*.tmp"], exclude=["keep*"])
    assert names_in(place) == {"keep.tmp", "c.txt"}


def test_empty_directories_go_when_they_have_been_left_alone_long_enough(place: Path) -> None:
    make_file(place / "used/up/old", age_days=8)
    (place / "just_made").mkdir()
    (place / "long/empty").mkdir(parents=True)
    for name in ("used/up", "used", "long/empty", "long"):
        set_age(place / name, 8)
    options: dict[str, Any] = {"older_than": "7d", "recurse": True, "remove_empty_directories": True}
    assert "4 directories" in clean(place, check=True, **options)["changes"][0]["after"]
    shown = clean(place, **options)
    assert names_in(place) == {"just_made"}
    assert shown["metrics"]["removed_directories"]["value"] == 4
    assert not clean(place, **options)["changed"]


def test_the_oldest_go_until_size_and_number_are_kept(place: Path) -> None:
    for age in range(1, 11):
        make_file(place / f"{age:02}", size=4096, age_days=age)
    clean(place, max_bytes="28KiB")
    assert names_in(place) == {f"{age:02}" for age in range(1, 8)}
    clean(place, max_files=5)
    assert names_in(place) == {f"{age:02}" for age in range(1, 6)}
    clean(place, max_files=1, older_than="0s", min_keep=3)
    assert names_in(place) == {"01", "02", "03"}
    assert not clean(place, max_files=1, older_than="0s", min_keep=3)["changed"]


def test_names_with_newlines_and_without_valid_utf8_go_and_are_shown_legibly(place: Path) -> None:
    for name in (b"new\nline", b"\xff\xfe\xfd", b"-rf", b"$(touch x)", "naïve café".encode(), b" "):
        path = place / os.fsdecode(name)
        make_file(path, age_days=8)
    shown = clean(place, older_than="7d")
    assert not shown["failed"]
    assert names_in(place) == set()
    removed = checks_by_name(shown)[CLEAN]["evidence"]["removed"]
    assert f"{place}/new\\x0aline" in removed
    assert f"{place}/\\xff\\xfe\\xfd" in removed


def test_links_are_neither_followed_nor_removed_unless_that_is_asked_for(place: Path, tmp_path: Path) -> None:
    precious = make_file(tmp_path / "precious/file", age_days=900)
    (place / "to_directory").symlink_to(precious.parent)
    (place / "to_file").symlink_to(precious)
    for name in ("to_directory", "to_file"):
        set_age(place / name, 8)
    options: dict[str, Any] = {"older_than": "7d", "recurse": True, "remove_empty_directories": True}
    assert not clean(place, **options)["changed"]
    assert names_in(place) == {"to_directory", "to_file"}
    clean(place, remove_links=True, **options)
    assert names_in(place) == set()
    assert precious.exists()


def test_sockets_and_pipes_are_left_alone(place: Path) -> None:
    os.mkfifo(place / "pipe")
    set_age(place / "pipe", 8)
    assert not clean(place, older_than="7d")["changed"]


def test_open_files_are_kept_and_named(place: Path) -> None:
    held = make_file(place / "held", age_days=8)
    make_file(place / "free", age_days=8)
    with held.open():
        shown = clean(place, older_than="7d")
        assert names_in(place) == {"held"}
        check = checks_by_name(shown)[OPEN]
        assert check["evidence"]["kept"] == [str(held)]
        assert not clean(place, older_than="7d")["changed"]
    assert clean(place, older_than="7d")["changed"]
    assert names_in(place) == set()


def test_a_directory_somebody_works_in_is_kept(place: Path) -> None:
    (place / "empty").mkdir()
    set_age(place / "empty", 8)
    options: dict[str, Any] = {"older_than": "7d", "recurse": True, "remove_empty_directories": True}
    with subprocess.Popen(["sleep", "60"], cwd=place / "empty") as worker:
        try:
            assert not clean(place, **options)["changed"]
        finally:
            worker.kill()
    assert clean(place, **options)["changed"]


def test_hard_links_free_nothing_until_the_last_one_goes(place: Path, tmp_path: Path) -> None:
    inside = make_file(place / "one", size=1 << 20, age_days=8)
    os.link(inside, place / "two")
    outside = tmp_path / "outside"
    os.link(make_file(place / "three", size=1 << 20, age_days=8), outside)
    predicted = clean(place, older_than="7d", check=True)
    assert "3 files, 1.0 MiB" in predicted["changes"][0]["after"]
    shown = clean(place, older_than="7d")
    assert names_in(place) == set()
    assert 1 << 20 <= shown["metrics"]["freed_bytes"]["value"] < (1 << 20) + 65536
    assert checks_by_name(shown)[SPACE]["evidence"]["hard_links"] == 1
    assert outside.stat().st_size == 1 << 20


def test_a_missing_directory_is_a_warning_unless_it_is_normal(place: Path) -> None:
    shown = clean(place / "nowhere", older_than="7d")
    assert not shown["failed"]
    assert checks_by_name(shown)[ALLOWED]["status"] == "warned"
    assert checks_by_name(shown)[ALLOWED]["observed"] == f"{place}/nowhere does not exist"
    assert checks_by_name(clean(place / "nowhere", older_than="7d", missing_ok=True))[ALLOWED]["status"] == "passed"


def test_no_rule_is_skipped_with_a_reason(tmp_path: Path) -> None:
    shown = run_module("storage_cleanup", {"state_dir": str(tmp_path / "state"), "rules": []})
    assert shown["skipped"]
    assert "storage_cleanup_rules" in shown["skip_reason"]


def test_an_age_rule_needs_no_more_memory_for_more_files(place: Path) -> None:
    for number in range(20_000):
        os.close(os.open(place / str(number), os.O_CREAT | os.O_WRONLY))
    defaults = {"name": "r", "path": str(place), "patterns": ["*"], "exclude": [], "max_bytes": None, "max_files": None}
    flags = ("recurse", "remove_empty_directories", "remove_links", "private", "missing_ok")
    rule = read_rules([{**defaults, "older_than": "0s", "min_keep": 0, **dict.fromkeys(flags, False)}])[0]
    limits = decide(rule, time.time() + 1, None)
    descriptor = os.open(place, os.O_RDONLY)
    tracemalloc.start()
    try:
        done = sweep(rule, limits, descriptor, lambda: InUse(frozenset(), 0), remove=True)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        os.close(descriptor)
    assert done.due_files == 20_000
    assert names_in(place) == set()
    assert peak < 300_000, f"{peak} bytes for 20,000 files"


@pytest.mark.long
def test_speed_is_near_that_of_find_delete(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fill() -> None:
        for number in range(100_000):
            (place / f"{number % 100}").mkdir(exist_ok=True) if number < 100 else None
            os.close(os.open(place / f"{number % 100}/{number}", os.O_CREAT | os.O_WRONLY))
        os.sync()

    fill()
    began = time.monotonic()
    subprocess.run(["find", str(place), "-type", "f", "-mtime", "-1", "-delete"], check=True)
    by_find = time.monotonic() - began
    fill()
    shown = clean(place, older_than="0s", recurse=True)
    assert shown["metrics"]["removed_files"]["value"] == 100_000
    ratio = shown["module_seconds"] / by_find
    with capsys.disabled():
        seconds = shown["module_seconds"]
        print(f"\n100,000 files: find -delete {by_find:.2f} s, storage_cleanup {seconds:.2f} s, ratio {ratio:.1f}")
    assert ratio < 6
