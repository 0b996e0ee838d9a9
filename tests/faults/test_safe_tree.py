"""Walking and removing a tree while somebody with write access exchanges its directories for links to elsewhere."""

from __future__ import annotations

import os
import stat
import threading
import time
from pathlib import Path

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.caches.directory import _rename_exchange
from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.wellkept.maintenance.plugins.module_utils.storage.guard_rails import opened_for_cleaning
from ansible_collections.wellkept.maintenance.plugins.module_utils.storage.safe_tree import (
    Directory,
    LinkInPathError,
    TreeWalk,
    opened_way,
    remove_tree,
)
from support.trees import make_file, names_in


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """``tree/sub/<files>`` to be removed, and ``outside/<files>`` that must survive everything."""
    base = tmp_path.resolve()
    for number in range(20):
        make_file(base / f"tree/sub/deep/{number}")
        make_file(base / f"outside/deep/{number}")
    make_file(base / "tree/file")
    return base


def remove_all(walk: TreeWalk) -> None:
    for found in walk:
        if not found.is_directory:
            found.remove()
        elif not found.left_in_it:
            try:
                found.remove()
            except OSError:
                found.parent.kept += 1


def exchange_for_link(base: Path) -> None:
    (base / "tree/sub").rename(base / "moved")
    (base / "tree/sub").symlink_to(base / "outside")


def test_a_directory_exchanged_before_it_is_entered_leads_nowhere(base: Path) -> None:
    before = names_in(base / "outside")
    with opened_way(str(base / "tree")) as way:
        walk = TreeWalk(way[-1], str(base / "tree"))
        for found in walk:
            if found.name == "file":
                exchange_for_link(base)
            elif not found.is_directory:
                found.remove()
    assert names_in(base / "outside") == before
    assert not walk.problems


def test_a_directory_exchanged_after_it_was_entered_is_still_the_old_one(base: Path) -> None:
    before = names_in(base / "outside")

    def meanwhile(directory: Directory) -> str:
        if directory.name == "sub":
            exchange_for_link(base)
        return ""

    with opened_way(str(base / "tree")) as way:
        remove_all(TreeWalk(way[-1], str(base / "tree"), reason_to_keep_out=meanwhile))
    assert names_in(base / "outside") == before
    assert names_in(base / "moved") == set()


def test_a_root_exchanged_after_the_guard_rails_is_still_the_old_one(base: Path) -> None:
    before = names_in(base / "outside")
    with opened_for_cleaning(str(base / "tree"), str(base / "state"), homes=[]) as (_parent, descriptor):
        (base / "tree").rename(base / "moved")
        (base / "tree").symlink_to(base / "outside")
        remove_all(TreeWalk(descriptor, str(base / "tree")))
    assert names_in(base / "outside") == before
    assert names_in(base / "moved") == set()


@pytest.mark.parametrize("victim", ["sub", "sub/deep"])
def test_nothing_outside_is_touched_while_a_thread_exchanges_directories(base: Path, victim: str) -> None:
    before = names_in(base / "outside")
    (base / "decoy").symlink_to(base / "outside" / ("deep" if victim == "sub/deep" else ""))
    stop = threading.Event()
    exchanges = 0

    def attack() -> None:
        nonlocal exchanges
        descriptor = os.open(base, os.O_RDONLY)
        while not stop.is_set():
            _rename_exchange(descriptor, f"tree/{victim}", "decoy")
            exchanges += 1
        os.close(descriptor)

    attacker = threading.Thread(target=attack)
    attacker.start()
    removed = 0
    began = time.monotonic()
    try:
        while (spent := time.monotonic() - began) < 3 or (min(exchanges, removed) <= 100 and spent < 240):
            with opened_way(str(base / "tree")) as way:
                for found in TreeWalk(way[-1], str(base / "tree")):
                    if stat.S_ISREG(found.status.st_mode):
                        removed += found.remove()
            assert names_in(base / "outside") >= before
            refill_safely(base)
    finally:
        stop.set()
        attacker.join()
    assert names_in(base / "outside") == before
    assert exchanges > 100, "the attack must have taken place"
    assert removed > 100, "there must have been something to remove"


def refill_safely(base: Path) -> None:
    """Give the walk something to remove; never through a link, so that only the walk could do harm outside."""
    try:
        with opened_way(str(base / "tree/sub/deep")) as way:
            for number in range(20):
                os.close(os.open(str(number), os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW, dir_fd=way[-1]))
    except (OSError, LinkInPathError):
        return


def test_removing_a_tree_removes_links_but_not_what_they_point_to(base: Path) -> None:
    (base / "tree/sub/link").symlink_to(base / "outside")
    before = names_in(base / "outside")
    with opened_way(str(base)) as way:
        removed = remove_tree(way[-1], "tree", str(base / "tree"))
    assert not (base / "tree").exists()
    assert (removed.files, removed.directories) == (22, 3)
    assert names_in(base / "outside") == before


def test_a_link_is_never_removed_as_a_tree(base: Path) -> None:
    (base / "link").symlink_to(base / "outside")
    before = names_in(base / "outside")
    with opened_way(str(base)) as way, pytest.raises(OSError, match=r"directory|links"):
        remove_tree(way[-1], "link", str(base / "link"))
    assert names_in(base / "outside") == before


def test_a_link_on_the_way_is_named(base: Path) -> None:
    (base / "link").symlink_to(base / "tree")
    with pytest.raises(LinkInPathError) as caught, opened_way(str(base / "link/sub/deep")):
        pass
    assert caught.value.component == str(base / "link")
    with (
        pytest.raises(MaintenanceError, match="refuse") as refused,
        opened_for_cleaning(str(base / "link/sub"), "/x/y"),
    ):
        pass
    assert f"{base}/link is a symbolic link to {base}/tree" in refused.value.observed


def test_no_descriptor_is_left_open(base: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with opened_way(str(base / "tree")) as way:
        for found in TreeWalk(way[-1], str(base / "tree")):
            if found.name == "5":
                break
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_tree_that_is_too_deep_is_reported_and_not_entered_further(tmp_path: Path) -> None:
    base = tmp_path.resolve()
    descriptor = os.open(base, os.O_RDONLY)
    for _round in range(300):
        os.mkdir("d", dir_fd=descriptor)
        below = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)
    with opened_way(str(base)) as way:
        walk = TreeWalk(way[-1], str(base))
        for _found in walk:
            pass
    assert walk.kept_out.count == 1
    assert "levels deep" in str(walk.kept_out)
