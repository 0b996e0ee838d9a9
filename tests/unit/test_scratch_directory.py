"""Where a scratch directory may be, and that it is removed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore.scratch_directory import (
    leftovers,
    overlap,
    prepare_base,
    remove_leftover,
    scratch_directory,
    short_socket_directory,
)


@pytest.fixture
def live(tmp_path: Path) -> Path:
    directory = tmp_path / "pg" / "data"
    (directory / "base").mkdir(parents=True)
    return directory


def test_overlap_is_seen_through_links_and_spellings(live: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(live)
    assert overlap(str(live), str(live)) == "is"
    assert overlap(f"{live}/../data/.", str(live)) == "is"
    assert overlap(str(tmp_path / "link"), str(live)) == "is"
    assert overlap(str(live / "base"), str(live)) == "lies inside"
    assert overlap(str(tmp_path / "link" / "not" / "there"), str(live)) == "lies inside"
    assert overlap(str(live.parent), str(tmp_path / "link")) == "contains"
    assert overlap(str(tmp_path / "scratch"), str(live)) == ""
    assert overlap(str(tmp_path / "scratch"), "/nowhere/on/this/host") == ""


def test_a_base_is_created_private_and_refused_when_it_is_not_ours_alone(live: Path, tmp_path: Path) -> None:
    base = tmp_path / "state" / "scratch"
    prepare_base(str(base), [str(live)], create=False)
    assert not base.exists()
    prepare_base(str(base), [str(live)])
    assert base.stat().st_mode & 0o777 == 0o700
    base.chmod(0o770)
    with pytest.raises(MaintenanceError, match="others can write to it"):
        prepare_base(str(base), [])
    with pytest.raises(MaintenanceError, match="absolute"):
        prepare_base("scratch", [])
    file = tmp_path / "file"
    file.touch()
    file.chmod(0o600)
    with pytest.raises(MaintenanceError):
        prepare_base(str(file), [])


def test_directories_of_the_live_cluster_are_refused_whatever_is_in_them(live: Path) -> None:
    for base in (live, live / "base", live / "not" / "there", live.parent):
        with pytest.raises(MaintenanceError, match="the live cluster's directory"):
            prepare_base(str(base), [str(live)])
    assert not (live / "not").exists()


def test_data_directories_of_any_server_are_refused(live: Path) -> None:
    (live / "PG_VERSION").touch()
    for base in (live, live / "base", live / "not" / "there"):
        with pytest.raises(MaintenanceError, match="is a PostgreSQL data directory"):
            prepare_base(str(base), [])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of other users")
def test_a_base_of_somebody_else_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    with pytest.raises(MaintenanceError, match="belongs to the user with the id 65534"):
        prepare_base(str(tmp_path), [])


def test_a_scratch_directory_is_gone_after_use_and_after_an_error(tmp_path: Path) -> None:
    with scratch_directory(str(tmp_path), {}) as path:
        assert Path(path).stat().st_mode & 0o777 == 0o700
        assert leftovers(str(tmp_path)) == [], "its lock is held, so it is no leftover"
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyError), scratch_directory(str(tmp_path), {}) as path:
        Path(path, "data").mkdir()
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_only_what_has_our_name_and_a_free_lock_is_a_leftover(tmp_path: Path) -> None:
    name = "wellkept-scratch-0123456789ab"
    for other in ("wellkept-scratch-", "wellkept-scratch-xyz", "data", f"{name}.old"):
        (tmp_path / other).mkdir()
    (tmp_path / name / "data").mkdir(parents=True)
    (tmp_path / "wellkept-scratch-ffffffffffff.lock").touch()
    assert leftovers(str(tmp_path)) == [name, "wellkept-scratch-ffffffffffff"]
    assert leftovers(str(tmp_path / "missing")) == []
    for found in leftovers(str(tmp_path)):
        assert remove_leftover(str(tmp_path), found) == "removed"
    assert leftovers(str(tmp_path)) == []


def test_links_in_a_leftover_are_not_followed(tmp_path: Path) -> None:
    treasure = tmp_path / "treasure"
    treasure.mkdir()
    (treasure / "gold").touch()
    base = tmp_path / "scratch"
    leftover = base / "wellkept-scratch-0123456789ab"
    leftover.mkdir(parents=True)
    (leftover / "wal").symlink_to(treasure)
    (base / "wellkept-scratch-ba9876543210").symlink_to(treasure)
    (leftover / "socket_directory").write_text(str(treasure))
    for found in leftovers(str(base)):
        remove_leftover(str(base), found)
    assert list(base.iterdir()) == []
    assert (treasure / "gold").exists()


def test_a_socket_that_would_not_fit_is_put_elsewhere_and_removed_too(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as short, scratch_directory(short, {}) as path:
        assert short_socket_directory(path) == f"{path}/socket"
    base = tmp_path / ("x" * 60)
    base.mkdir()
    with scratch_directory(str(base), {}) as path:
        outside = Path(short_socket_directory(path))
        assert outside.is_relative_to("/tmp/")
        assert outside.stat().st_mode & 0o777 == 0o700
    assert not outside.exists()
