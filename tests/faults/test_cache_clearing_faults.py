"""cache_clearing where things are broken, dangerous, or interrupted."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.caches import directory as exchanged
from ansible_collections.wellkept.maintenance.plugins.module_utils.caches.holding import Held
from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MaintenanceError
from support.modules import checks_by_name, module_process, run_module
from support.small_application import small_application
from support.trees import make_file, names_in, open_place
from support.unprivileged import give_to_nobody, run_module_without_root
from support.waiting import wait_until

ALLOWED = "cache c: directory may be cleared"
CLEARED = "cache c: cleared when due"
BEFORE = "cache c: the application answers before"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount, or to make files of other users")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    directory = tmp_path.resolve() / "app" / "cache"
    directory.mkdir(parents=True)
    return directory


def options_for(cache: Path | str, state: Path, **options: Any) -> dict[str, Any]:
    wish = {"name": "c", "path": str(cache), "clear_when": {"always": True}, **options}
    return {"state_dir": str(state), "caches": [wish]}


def clear(cache: Path | str, state: Path, run: Any = run_module, **options: Any) -> dict[str, Any]:
    shown: dict[str, Any] = run("cache_clearing", options_for(cache, state, **options))
    return shown


@pytest.mark.parametrize("kind", ["directory", "nginx"])
def test_a_cache_that_is_a_link_to_etc_is_refused_and_etc_survives(kind: str, tmp_path: Path) -> None:
    base = tmp_path.resolve()
    link = base / "app/cache"
    link.parent.mkdir()
    link.symlink_to("/etc")
    before = sorted(os.listdir("/etc"))
    shown = clear(link, base / "state", kind=kind)
    assert shown["failed"]
    assert not shown["changed"]
    assert f"{link} is a symbolic link to /etc" in shown["msg"]
    assert sorted(os.listdir("/etc")) == before
    assert link.is_symlink()


@pytest.mark.parametrize("path", ["/", "/etc/nginx", "/var/cache", "/root", "cache"])
def test_a_dangerous_path_is_refused(path: str, tmp_path: Path) -> None:
    shown = clear(path, tmp_path / "state", clear_when={"older_than": "3650d"})
    assert shown["failed"]
    assert checks_by_name(shown)[ALLOWED]["status"] == "failed"


def test_a_missing_cache_is_a_warning_unless_it_is_normal(cache: Path, tmp_path: Path) -> None:
    assert checks_by_name(clear(cache / "x", tmp_path / "state"))[ALLOWED]["status"] == "warned"
    assert checks_by_name(clear(cache / "x", tmp_path / "state", missing_ok=True))[ALLOWED]["status"] == "passed"


def test_nothing_is_cleared_while_the_application_is_down(cache: Path, tmp_path: Path) -> None:
    make_file(cache / "page")
    with small_application(cache) as application:
        application.status = 500
        probe = {"urls": [f"{application.url}/health"], "timeout_seconds": 120}
        shown = clear(cache, tmp_path / "state", probe=probe)
    assert shown["failed"]
    assert not shown["changed"]
    assert "status 500" in checks_by_name(shown)[BEFORE]["observed"]
    assert names_in(cache) == {"page"}
    stopped = clear(cache, tmp_path / "state", probe=probe)
    assert "refused" in checks_by_name(stopped)[BEFORE]["observed"]
    assert names_in(cache) == {"page"}


def fill_for_long(cache: Path) -> None:
    """So many files that removing them takes a while."""
    for number in range(200):
        (cache / str(number)).mkdir()
    for number in range(30_000):
        os.close(os.open(cache / str(number % 200) / str(number), os.O_CREAT | os.O_WRONLY))


def kill_while_it_clears(cache: Path, state: Path) -> None:
    """Kill a clearing as soon as the application sees an empty cache; it may have been faster."""
    process = module_process("cache_clearing", options_for(cache, state))
    while any(cache.iterdir()) and process.poll() is None:
        pass
    process.kill()
    process.communicate()


def test_a_clearing_that_is_killed_is_finished_by_the_next_run(cache: Path, tmp_path: Path) -> None:
    leftovers: list[Path] = []
    for _try in range(20):
        if leftovers:
            break
        fill_for_long(cache)
        kill_while_it_clears(cache, tmp_path / "state")
        leftovers = [path for path in cache.parent.iterdir() if path != cache]
    assert len(leftovers) == 1
    assert names_in(cache) == set(), "the application saw the empty cache at once"
    make_file(cache / "new page")
    shown = clear(cache, tmp_path / "state", clear_when={"larger_than": "1GiB"})
    assert not shown["failed"], shown.get("msg")
    assert [change["kind"] for change in shown["changes"]] == ["leftover"]
    assert names_in(cache.parent) == {"cache", "cache/new page"}
    assert not clear(cache, tmp_path / "state", clear_when={"larger_than": "1GiB"})["changed"]


def test_leftovers_of_other_caches_and_links_of_that_name_are_left_alone(cache: Path, tmp_path: Path) -> None:
    ours = ".wellkept-cleared-cache-0123456789abcdef"
    others = ".wellkept-cleared-other-0123456789abcdef"
    link = ".wellkept-cleared-cache-fedcba9876543210"
    make_file(cache.parent / ours / "x")
    make_file(cache.parent / others / "x")
    precious = make_file(tmp_path / "precious/file").parent
    (cache.parent / link).symlink_to(precious)
    clear(cache, tmp_path / "state")
    assert {path.name for path in cache.parent.iterdir()} == {"cache", others, link}
    assert names_in(precious) == {"file"}


def test_a_kill_between_the_two_steps_of_a_slow_exchange_is_repaired(cache: Path, tmp_path: Path) -> None:
    make_file(cache / "page")
    cache.rename(cache.parent / ".wellkept-cleared-cache-0123456789abcdef")
    shown = clear(cache, tmp_path / "state", clear_when={"larger_than": "1GiB"})
    assert checks_by_name(shown)[ALLOWED]["status"] == "passed"
    assert names_in(cache.parent) == {"cache", "cache/page"}


def test_where_two_names_cannot_be_exchanged_at_once_it_takes_two_steps(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(_directory: int, _one: str, _other: str) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(exchanged, "_rename_exchange", cannot)
    make_file(cache / "page")
    parent, descriptor = os.open(cache.parent, os.O_RDONLY), os.open(cache, os.O_RDONLY)
    removed = exchanged.clear(Held(parent, descriptor, str(cache)))
    os.close(parent)
    os.close(descriptor)
    assert removed.files == 1
    assert names_in(cache.parent) == {"cache"}


def test_a_directory_put_in_the_caches_place_meanwhile_is_put_back_and_kept(cache: Path) -> None:
    parent, descriptor = os.open(cache.parent, os.O_RDONLY), os.open(cache, os.O_RDONLY)
    cache.rename(cache.parent / "measured")
    make_file(cache / "precious")
    with pytest.raises(MaintenanceError) as caught:
        exchanged.clear(Held(parent, descriptor, str(cache)))
    os.close(parent)
    os.close(descriptor)
    assert "another in its place" in caught.value.observed
    assert (cache / "precious").exists()


def test_a_parent_that_cannot_be_written_to_fails_with_its_name() -> None:
    with open_place() as base:
        make_file(base / "app/cache/page")
        state = base / "state"
        state.mkdir()
        give_to_nobody(base / "app/cache", base / "app/cache/page", state)
        (base / "app").chmod(0o555)
        try:
            shown = clear(base / "app/cache", state, run=run_module_without_root)
            assert shown["failed"]
            assert f"{base}/app: Permission denied" in checks_by_name(shown)[CLEARED]["observed"]
            assert names_in(base / "app") == {"cache", "cache/page"}
        finally:
            (base / "app").chmod(0o755)


def test_what_cannot_be_deleted_fails_and_is_finished_when_it_can() -> None:
    with open_place() as base:
        make_file(base / "app/cache/locked/page")
        make_file(base / "app/cache/page")
        state = base / "state"
        state.mkdir()
        give_to_nobody(base / "app", *(base / "app").rglob("*"), state)
        (base / "app/cache/locked").chmod(0o555)
        shown = clear(base / "app/cache", state, run=run_module_without_root)
        assert shown["failed"]
        assert "locked/page: Permission denied" in checks_by_name(shown)[CLEARED]["observed"]
        assert names_in(base / "app/cache") == set()
        (locked,) = (base / "app").rglob("locked")
        locked.chmod(0o755)
        assert clear(base / "app/cache", state, run=run_module_without_root)["changed"]
        assert names_in(base / "app") == {"cache"}


@as_root
def test_another_users_cache_is_not_replaced_by_one_of_ours() -> None:
    with open_place() as base:
        make_file(base / "app/cache/page")
        state = base / "state"
        state.mkdir()
        give_to_nobody(base / "app", state)
        shown = clear(base / "app/cache", state, run=run_module_without_root)
        assert shown["failed"]
        assert "the right to make a directory of user 0" in checks_by_name(shown)[CLEARED]["expected"]
        assert names_in(base / "app") == {"cache", "cache/page"}


@as_root
def test_a_cache_that_is_a_mount_point_is_refused_in_words(cache: Path, tmp_path: Path) -> None:
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(cache)], check=False, capture_output=True).returncode:
        pytest.skip("this host does not let root mount")
    try:
        make_file(cache / "page")
        shown = clear(cache, tmp_path / "state")
        assert shown["failed"]
        assert "a file system of its own" in checks_by_name(shown)[CLEARED]["observed"]
        assert names_in(cache.parent) == {"cache", "cache/page"}
    finally:
        subprocess.run(["umount", str(cache)], check=True)


@pytest.mark.parametrize("foreign", ["index.html", "a/notes.txt", "uploads/file", "a/b"])
def test_a_directory_that_is_no_cache_of_nginx_is_left_alone_as_a_whole(
    foreign: str, cache: Path, tmp_path: Path
) -> None:
    name = hashlib.md5(b"key").hexdigest()
    make_file(cache / name[-1] / name[-3:-1] / name)
    make_file(cache / foreign)
    before = names_in(cache)
    shown = clear(cache, tmp_path / "state", kind="nginx")
    assert shown["failed"]
    assert foreign.rsplit("/", maxsplit=1)[-1] in checks_by_name(shown)[CLEARED]["observed"]
    assert names_in(cache) == before


def test_a_link_inside_a_cache_of_nginx_is_foreign(cache: Path, tmp_path: Path) -> None:
    name = hashlib.md5(b"key").hexdigest()
    precious = make_file(tmp_path / "precious")
    place = cache / name[-1] / name[-3:-1]
    place.mkdir(parents=True)
    (place / name).symlink_to(precious)
    assert clear(cache, tmp_path / "state", kind="nginx")["failed"]
    assert precious.exists()


def test_hostile_names_and_links_in_a_cache_go_without_harm(cache: Path, tmp_path: Path) -> None:
    precious = make_file(tmp_path / "precious/file").parent
    (cache / "link").symlink_to(precious)
    make_file(cache / os.fsdecode(b"\xff\xfe") / "new\nline")
    shown = clear(cache, tmp_path / "state")
    assert not shown["failed"], shown.get("msg")
    assert names_in(cache) == set()
    assert names_in(precious) == {"file"}


def test_two_runs_at_once_the_second_says_who_holds_the_lock(cache: Path, tmp_path: Path) -> None:
    make_file(cache / "page")
    with small_application(cache) as application:
        application.may_answer.clear()
        probe = {"urls": [f"{application.url}/page/slow"], "timeout_seconds": 300}
        options = options_for(cache, tmp_path / "state", probe=probe)
        first = module_process("cache_clearing", {**options, "run_id": "first-run"})
        wait_until(lambda: application.requests, "the first run to ask the application")
        second = run_module("cache_clearing", options)
        application.may_answer.set()
        first.communicate()
    assert second["failed"]
    assert "first-run" in second["msg"]
