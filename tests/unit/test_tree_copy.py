"""Copies of directories by several workers: the same content, modes and times, whoever moves the bytes."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.tree_copy import copy_tree
from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MaintenanceError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Small files, a large one, an empty one, an empty directory, a closed one, a link."""
    source = tmp_path / "source"
    (source / "base" / "1").mkdir(parents=True)
    for number in range(300):
        (source / "base" / "1" / str(number)).write_bytes(os.urandom(number))
    (source / "base" / "large").write_bytes(os.urandom(3 << 20))
    (source / "empty").mkdir(mode=0o750)
    (source / "link").symlink_to("base/large")
    (source / "PG_VERSION").write_text("18\n")
    (source / "PG_VERSION").chmod(0o640)
    os.utime(source / "PG_VERSION", ns=(1_600_000_000_123_456_789, 1_500_000_000_987_654_321))
    os.utime(source / "base", ns=(1_600_000_000_000_000_000, 1_500_000_000_000_000_000))
    return source


def seen(root: Path) -> dict[str, tuple[Any, ...]]:
    found: dict[str, tuple[Any, ...]] = {}
    for path in [root, *sorted(root.rglob("*"))]:
        status = path.lstat()
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = ("link", os.readlink(path))
        else:
            content = path.read_bytes() if path.is_file() else b""
            found[name] = (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, content)
    return found


def test_everything_is_copied_as_it_is(tree: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    copy_tree(str(tree), str(target), "copy")
    assert seen(target) == seen(tree)


def test_where_the_kernel_cannot_copy_we_do(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> int:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "copy_file_range", refuse)
    copy_tree(str(tree), str(tmp_path / "target"), "copy")
    assert seen(tmp_path / "target") == seen(tree)


def test_what_is_no_file_is_refused(tree: Path, tmp_path: Path) -> None:
    os.mkfifo(tree / "base" / "pipe")
    with pytest.raises(MaintenanceError, match="base/pipe"):
        copy_tree(str(tree), str(tmp_path / "target"), "copy")


def test_nothing_that_is_there_is_overwritten(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "PG_VERSION").write_text("17\n")
    with pytest.raises(MaintenanceError, match="File exists"):
        copy_tree(str(tree), str(tmp_path / "target"), "copy")
    assert (tmp_path / "target" / "PG_VERSION").read_text() == "17\n"


def test_an_error_of_one_worker_is_told(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "copy_file_range", full)
    with pytest.raises(MaintenanceError, match="No space left on device") as caught:
        copy_tree(str(tree), str(tmp_path / "target"), "copy the base backup")
    assert caught.value.what == "copy the base backup"
