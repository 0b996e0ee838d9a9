"""Application files laid down from copies and held against their manifest: every difference is told."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.files import copy_tree
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.repository import Backup
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.stores.application_files import (
    compare,
    lay_down,
    place_of,
    read_manifest,
    report_files,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.stores.restic.listing import (
    list_directories,
    mark_changing,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.wellkept.maintenance.plugins.module_utils.result import Part

Manifest = list[dict[str, Any]]


@pytest.fixture
def uploads(tmp_path: Path) -> Path:
    directory = tmp_path / "uploads"
    (directory / "deep" / "empty").mkdir(parents=True)
    (directory / "deep").chmod(0o2750)
    (directory / "1.txt").write_text("one")
    (directory / "1.txt").chmod(0o640)
    (directory / os.fsdecode(b"caf\xe9.txt")).write_text("a name that is no UTF-8")
    (directory / "deep" / "2\n.txt").write_text("two")
    (directory / "link").symlink_to("/etc/passwd")
    (directory / "out").symlink_to(tmp_path)
    return directory


@pytest.fixture
def laid_down(uploads: Path, tmp_path: Path) -> tuple[Manifest, Path, Path]:
    """The manifest, the directory that everything was laid down in, and the place of the uploads there."""
    copied = copy_tree(str(uploads), str(tmp_path / "copies"))
    manifest = [{"source": copied.source, "entries": copied.entries}]
    target = tmp_path / "target"
    target.mkdir()
    lay_down(str(tmp_path / "copies"), manifest[0], str(target))
    return manifest, target, Path(place_of(str(uploads), str(target)))


def test_what_is_laid_down_is_what_was_copied(laid_down: tuple[Manifest, Path, Path], uploads: Path) -> None:
    manifest, target, place = laid_down
    found = compare(manifest, str(target))
    assert found.problems == []
    assert (found.files, found.bytes) == (3, 29)
    assert found.places == {str(uploads): str(place)}
    assert (place / "1.txt").stat().st_mtime_ns == (uploads / "1.txt").stat().st_mtime_ns
    assert (place / "deep").stat().st_mtime_ns == (uploads / "deep").stat().st_mtime_ns


def _relink(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def _pipe_for_file(place: Path) -> None:
    (place / "1.txt").unlink()
    os.mkfifo(place / "1.txt")


HARM: dict[str, tuple[Callable[[Path], object], str]] = {
    "content": (lambda place: (place / "1.txt").write_text("won"), "1.txt has another content"),
    "length": (lambda place: (place / "1.txt").write_text("one and more"), "1.txt has another content"),
    "mode": (lambda place: (place / "1.txt").chmod(0o644), "1.txt has the mode 0644 instead of 0640"),
    "mode of a directory": (lambda place: (place / "deep").chmod(0o777), "deep has the mode 0777 instead of 2750"),
    "missing file": (lambda place: (place / "1.txt").unlink(), "1.txt is missing"),
    "missing directory": (lambda place: (place / "deep" / "empty").rmdir(), "deep/empty is missing"),
    "missing link": (lambda place: (place / "link").unlink(), "link is missing"),
    "a file more": (lambda place: (place / "deep" / "more").write_text(""), "deep/more is not in the backup's list"),
    "a directory more": (lambda place: (place / "more").mkdir(), "more is not in the backup's list"),
    "another link": (lambda place: _relink(place / "link", "/etc/shadow"), "link leads to /etc/shadow"),
    "a link for a file": (lambda place: _relink(place / "1.txt", "/etc/hostname"), "1.txt is a link instead of a file"),
    "a pipe for a file": (_pipe_for_file, "1.txt is a special instead of a file"),
    "nothing": (shutil.rmtree, "was not laid down"),
}


@pytest.mark.parametrize("kind", HARM)
def test_every_difference_is_told(laid_down: tuple[Manifest, Path, Path], kind: str) -> None:
    manifest, target, place = laid_down
    harm, words = HARM[kind]
    harm(place)
    problems = compare(manifest, str(target)).problems
    assert any(words in problem for problem in problems), problems


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_another_owner_is_told(laid_down: tuple[Manifest, Path, Path]) -> None:
    manifest, target, place = laid_down
    os.chown(place / "1.txt", 12345, 12345)
    assert [problem for problem in compare(manifest, str(target)).problems if "belongs to 12345:12345" in problem]


@pytest.mark.parametrize("path", ["../escaped", "/escaped", "deep/../../escaped"])
def test_a_manifest_that_leads_out_of_its_directory_is_refused(tmp_path: Path, path: str) -> None:
    entry = {"kind": "directory", "path": path, "mode": 0o755, "uid": 0, "gid": 0, "mtime_ns": 0}
    with pytest.raises(MaintenanceError, match="leads out of it"):
        lay_down(str(tmp_path), {"source": "/srv/uploads", "entries": [entry]}, str(tmp_path / "target"))
    assert not (tmp_path / "escaped").exists()


def test_a_list_that_is_not_as_it_was_written_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "files.json"
    path.write_text("[]")
    written = {"path": path.name, "sha256": hashlib.sha256(b"[]").hexdigest()}
    assert read_manifest(Backup("x", str(tmp_path), {"files": [written]}), path.name) == []
    path.write_text("[ ]")
    for files in ([written], []):
        with pytest.raises(MaintenanceError, match="read the list of application files"):
            read_manifest(Backup("x", str(tmp_path), {"files": files}), path.name)


def test_what_could_not_be_saved_is_told(uploads: Path, tmp_path: Path) -> None:
    copied = copy_tree(str(uploads), str(tmp_path / "copies"))
    found = {}
    for name in ("", "unreadable", "changing", "special", "other_file_systems"):
        part = Part()
        report_files(copied._replace(**{name: ["1.txt"]} if name else {}), part)
        found[name] = part.checks[0]["status"]
    others = dict.fromkeys(("changing", "special", "other_file_systems"), "warned")
    assert found == {"": "passed", "unreadable": "failed", **others}


# -- our own list of what restic saves --


def test_a_list_tells_what_changed_since_and_reads_nothing_else_again(
    uploads: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in uploads.rglob("*"):
        os.utime(path, (1, 1), follow_symlinks=False)
    first = list_directories([str(uploads)])
    first.manifest[0]["taken"] += 60  # as if it had been made long after the files were written
    (uploads / "deep" / "2\n.txt").write_text("two and more")
    (uploads / "new").write_text("new")
    (uploads / "1.txt").unlink()
    # What is not read again keeps the hash of the list, whatever that is.
    kept = next(entry for entry in first.manifest[0]["entries"] if entry["path"].startswith("caf"))
    kept["sha256"] = "believed"
    second = list_directories([str(uploads)], first.manifest)
    assert {entry["sha256"] for entry in second.manifest[0]["entries"] if entry["path"].startswith("caf")} == {
        "believed"
    }
    assert first.differences(second)[str(uploads)] >= {"deep/2\n.txt", "new", "1.txt"}
    assert not {"link", "deep/empty"} & first.differences(second)[str(uploads)]


def test_a_file_that_was_changed_a_moment_before_it_was_listed_is_read_again(uploads: Path) -> None:
    (uploads / "1.txt").write_text("just now")
    first = list_directories([str(uploads)])
    entry = next(entry for entry in first.manifest[0]["entries"] if entry["path"] == "1.txt")
    genuine, entry["sha256"] = entry["sha256"], "not believed"
    second = list_directories([str(uploads)], first.manifest)
    assert genuine in {entry.get("sha256") for entry in second.manifest[0]["entries"]}


def test_what_changed_while_it_was_saved_may_differ_and_all_else_may_not(uploads: Path, tmp_path: Path) -> None:
    listed = list_directories([str(uploads)])
    target = tmp_path / "target"
    place = Path(place_of(str(uploads), str(target)))
    place.parent.mkdir(parents=True)
    shutil.copytree(uploads, place, symlinks=True)
    (place / "deep" / "2\n.txt").write_text("as it was an instant later")
    (place / "deep" / "temporary").write_text("there for an instant")
    mark_changing(listed.manifest, {str(uploads): {"deep", "deep/2\n.txt", "deep/temporary"}})
    assert compare(listed.manifest, str(target)).problems == []
    (place / "deep" / "empty").rmdir()
    (place / "more").write_text("")
    problems = compare(listed.manifest, str(target)).problems
    assert [problem.rpartition(": ")[2] for problem in problems] == [
        "more is not in the backup's list",
        "deep/empty is missing",
    ]
