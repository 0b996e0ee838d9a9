"""storage_cleanup where things are broken, dangerous, or changed under its hands."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.modules import checks_by_name, run_module
from support.trees import make_file, names_in, open_place, set_age
from support.unprivileged import give_to_nobody, run_module_without_root

ALLOWED = "rule r: directory may be cleaned"
CLEAN = "rule r: nothing left that should go"
OPEN = "rule r: open files are known and kept"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount, or to make files of other users")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    directory = tmp_path.resolve() / "app" / "tmp"
    directory.mkdir(parents=True)
    return directory


def clean(path: Path | str, state: Path, run: Any = run_module, **options: Any) -> dict[str, Any]:
    rule = {"name": "r", "path": str(path), "older_than": "7d", "recurse": True, "private": True, **options}
    return run("storage_cleanup", {"state_dir": str(state), "rules": [rule]})


@pytest.mark.parametrize("path", ["/", "/etc", "/home", "/root", "/var/log", "relative/path", "/srv/x/../../etc"])
def test_a_dangerous_path_fails_with_the_reason(path: str, tmp_path: Path) -> None:
    shown = clean(path, tmp_path / "state", older_than="3650d")
    assert shown["failed"]
    assert not shown["changed"]
    assert checks_by_name(shown)[ALLOWED]["status"] == "failed"


def test_a_refused_rule_does_not_keep_the_others_from_their_work(place: Path, tmp_path: Path) -> None:
    make_file(place / "old", age_days=8)
    rules = [{"name": "bad", "path": "/etc", "older_than": "7d"}, {"name": "r", "path": str(place), "older_than": "7d"}]
    shown = run_module("storage_cleanup", {"state_dir": str(tmp_path / "state"), "rules": rules})
    assert shown["failed"]
    assert checks_by_name(shown)[CLEAN]["status"] == "passed"
    assert names_in(place) == set()


def test_one_bad_rule_is_refused_before_anything_is_removed(place: Path, tmp_path: Path) -> None:
    make_file(place / "old", age_days=8)
    rules = [{"name": "r", "path": str(place), "older_than": "7d"}, {"name": "bad", "path": str(place)}]
    shown = run_module("storage_cleanup", {"state_dir": str(tmp_path / "state"), "rules": rules})
    assert shown["failed"]
    assert "rule bad: it has no criterion" in shown["msg"]
    assert names_in(place) == {"old"}


@pytest.mark.parametrize("linked", ["app", "app/tmp"])
def test_a_link_anywhere_in_the_path_is_named_and_refused(linked: str, tmp_path: Path) -> None:
    base = tmp_path.resolve()
    make_file(base / "precious/tmp/old", age_days=8)
    if linked == "app":
        (base / "app").symlink_to(base / "precious")
    else:
        (base / "app").mkdir()
        (base / "app/tmp").symlink_to(base / "precious/tmp")
    shown = clean(base / "app/tmp", base / "state")
    assert shown["failed"]
    assert f"{base}/{linked} is a symbolic link to {base}/precious" in checks_by_name(shown)[ALLOWED]["observed"]
    assert (base / "precious/tmp/old").exists()


@pytest.mark.parametrize(
    ("marks", "words"),
    [
        (["PG_VERSION"], "a PostgreSQL data directory"),
        (["backup_manifest"], "a base backup"),
        (["config", "data/d", "index/i", "keys/k", "locks/l", "snapshots/s"], "a restic repository"),
        (["backup.info"], "a pgBackRest repository"),
        (["20261121T020000Z-full-0a1b/backup.json"], "a backup repository"),
        (["live/20261121T020000Z-incr-0a1b/backup.json"], "a backup repository"),
        (["live/.partial-20261121T020000Z-full-0a1b/x"], "a backup repository"),
        ([".git/config"], "a git work tree"),
    ],
)
def test_somebodys_data_is_refused(marks: list[str], words: str, place: Path, tmp_path: Path) -> None:
    for mark in marks:
        make_file(place / mark, age_days=900)
    shown = clean(place, tmp_path / "state")
    assert shown["failed"]
    assert words in checks_by_name(shown)[ALLOWED]["observed"]
    assert all((place / mark).exists() for mark in marks)


def test_a_borg_repository_is_told_from_an_application_by_its_readme(place: Path, tmp_path: Path) -> None:
    for name in ("README", "config", "data/0/1"):
        make_file(place / name, age_days=900)
    make_file(place / "tmp/old", age_days=8)
    assert not clean(place / "tmp", tmp_path / "state")["failed"]
    (place / "README").write_text("This is a Borg Backup repository.\nSee https://borgbackup.readthedocs.io/\n")
    for path in (place, place / "data"):
        shown = clean(path, tmp_path / "state")
        assert "a Borg repository" in checks_by_name(shown)[ALLOWED]["observed"]
    assert (place / "data/0/1").exists()


def test_a_directory_inside_a_data_directory_is_refused(place: Path, tmp_path: Path) -> None:
    make_file(place / "PG_VERSION")
    make_file(place / "base/1/1234", age_days=900)
    shown = clean(place / "base/1", tmp_path / "state")
    assert "a directory above it looks like a PostgreSQL data directory" in checks_by_name(shown)[ALLOWED]["observed"]
    assert (place / "base/1/1234").exists()


def test_a_data_directory_met_on_the_way_is_left_alone_with_a_warning(place: Path, tmp_path: Path) -> None:
    make_file(place / "old", age_days=8)
    make_file(place / "pg/PG_VERSION", age_days=900)
    make_file(place / "pg/base/1/1234", age_days=900)
    make_file(place / "work/.git/HEAD", age_days=900)
    make_file(place / "store/main/.partial-20261121T020000Z-full-0a1b/base", age_days=900)
    shown = clean(place, tmp_path / "state")
    check = checks_by_name(shown)["rule r: no subdirectory has to be left alone"]
    assert check["status"] == "warned"
    assert "pg: looks like a PostgreSQL data directory" in check["observed"]
    assert "work: looks like the root of a git work tree" in check["observed"]
    assert {"pg/base/1/1234", "work/.git/HEAD", "store/main/.partial-20261121T020000Z-full-0a1b/base"} < names_in(place)
    assert "old" not in names_in(place)


def test_our_own_state_is_refused(place: Path) -> None:
    shown = clean(place, place / "state")
    assert "holds the state directory" in checks_by_name(shown)[ALLOWED]["observed"]


def test_a_file_in_place_of_the_directory_fails_with_its_name(place: Path, tmp_path: Path) -> None:
    make_file(place / "file")
    shown = clean(place / "file", tmp_path / "state")
    assert shown["failed"]
    assert f"{place}/file" in checks_by_name(shown)[ALLOWED]["observed"]


@as_root
@pytest.mark.parametrize("kind", ["tmpfs", "bind"])
def test_no_other_file_system_is_entered(kind: str, place: Path, tmp_path: Path) -> None:
    mounted = place / "mounted here"
    mounted.mkdir()
    source = tmp_path / "elsewhere"
    source.mkdir()
    options = ["-t", "tmpfs", "tmpfs"] if kind == "tmpfs" else ["--bind", str(source)]
    if subprocess.run(["mount", *options, str(mounted)], check=False, capture_output=True).returncode:
        pytest.skip("this host does not let root mount")
    try:
        precious = make_file(mounted / "precious", age_days=900)
        make_file(place / "old", age_days=8)
        shown = clean(place, tmp_path / "state")
        assert precious.exists()
        assert not (place / "old").exists()
        check = checks_by_name(shown)["rule r: no subdirectory has to be left alone"]
        assert "mounted here: is on another file system" in check["observed"]
    finally:
        subprocess.run(["umount", str(mounted)], check=True)


def test_what_cannot_be_removed_or_read_fails_with_its_path() -> None:
    with open_place() as base:
        make_file(base / "app/tmp/locked/old", age_days=8)
        (base / "app/tmp/closed").mkdir()
        make_file(base / "app/tmp/old", age_days=8)
        state = base / "state"
        state.mkdir()
        give_to_nobody(base / "app/tmp", *(base / "app/tmp").rglob("*"), state)
        (base / "app/tmp/locked").chmod(0o555)
        (base / "app/tmp/closed").chmod(0)
        try:
            shown = clean(base / "app/tmp", state, run=run_module_without_root)
            check = checks_by_name(shown)[CLEAN]
            assert shown["failed"]
            assert check["status"] == "failed"
            assert f"{base}/app/tmp/locked/old: Permission denied" in check["observed"]
            assert f"{base}/app/tmp/closed: Permission denied" in check["observed"]
            assert not (base / "app/tmp/old").exists(), "the rest is cleaned all the same"
        finally:
            (base / "app/tmp/locked").chmod(0o755)
            (base / "app/tmp/closed").chmod(0o755)


@as_root
def test_without_root_files_of_others_are_kept_and_unseen_processes_are_admitted() -> None:
    with open_place() as base:
        directory = base / "app/tmp"
        foreign = make_file(directory / "foreign", age_days=8)
        own = make_file(directory / "own", age_days=8)
        state = base / "state"
        state.mkdir()
        give_to_nobody(directory, own, state)
        shown = clean(directory, state, run=run_module_without_root, private=False)
        checks = checks_by_name(shown)
        assert foreign.exists()
        assert not own.exists()
        assert checks[CLEAN]["status"] == "warned"
        assert str(foreign) in checks[CLEAN]["observed"]
        assert checks[OPEN]["status"] == "unknown"


def test_files_that_vanish_or_return_to_life_are_no_trouble(place: Path, tmp_path: Path) -> None:
    """Somebody else deletes and touches the same files all the while."""
    for number in range(3000):
        make_file(place / f"{number % 10}/{number}", age_days=8)
    program = (
        "import os, sys\n"
        "for number in range(2999, -1, -1):\n"
        "    path = f'{sys.argv[1]}/{number % 10}/{number}'\n"
        "    try: os.utime(path) if number % 3 == 0 else os.unlink(path)\n"
        "    except FileNotFoundError: pass\n"
    )
    with subprocess.Popen(["python3", "-c", program, str(place)]) as other:
        shown = clean(place, tmp_path / "state")
        other.wait()
    assert not shown["failed"], shown.get("msg")
    assert not clean(place, tmp_path / "state")["failed"]
    for path in place.rglob("*"):
        if path.is_file():
            set_age(path, 8)
    clean(place, tmp_path / "state")
    assert not [path for path in place.rglob("*") if path.is_file()]
