"""cache_clearing on real files, beside a small application that is running."""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.modules import checks_by_name, run_module
from support.small_application import SmallApplication, small_application
from support.trees import make_file, names_in
from support.waiting import wait_until

CLEARED = "cache c: cleared when due"
BEFORE = "cache c: the application answers before"
AFTER = "cache c: the application still answers as fast"
WARM = "cache c: warmed up"
# For an application that is to be found well, however slow the machine is just now.
PATIENT = {"min_allowed_seconds": 60, "timeout_seconds": 120}


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    directory = tmp_path.resolve() / "app" / "cache"
    directory.mkdir(parents=True)
    return directory


@pytest.fixture
def application(cache: Path) -> Iterator[SmallApplication]:
    with small_application(cache) as running:
        yield running


def clear(
    cache: Path, *, check: bool = False, clear_when: dict[str, Any] | None = None, **options: Any
) -> dict[str, Any]:
    wish = {"name": "c", "path": str(cache), "clear_when": clear_when or {"always": True}, **options}
    return run_module("cache_clearing", {"state_dir": str(cache.parents[1] / "state"), "caches": [wish]}, check=check)


def fill(cache: Path, files: int = 50) -> None:
    for number in range(files):
        make_file(cache / f"{number % 5}/{number}", size=5000)


def fill_like_nginx(cache: Path, files: int = 50, levels: tuple[int, ...] = (1, 2)) -> list[Path]:
    paths = []
    for number in range(files):
        name = hashlib.md5(str(number).encode()).hexdigest()
        place, end = cache, 32
        for length in levels:
            place, end = place / name[end - length : end], end - length
        paths.append(make_file(place / name, size=5000))
    return paths


def test_a_due_cache_is_cleared_and_owner_and_mode_stay(cache: Path, application: SmallApplication) -> None:
    fill(cache)
    cache.chmod(0o2771)
    if os.geteuid() == 0:
        os.chown(cache, 12345, 23456)
        cache.chmod(0o2771)
    before = cache.stat()
    probe = {**PATIENT, "urls": [f"{application.url}/health"]}
    shown = clear(cache, clear_when={"larger_than": "100KiB"}, probe=probe)
    assert not shown["failed"], shown["msg"]
    assert shown["changed"]
    after = cache.stat()
    assert (before.st_uid, before.st_gid, before.st_mode) == (after.st_uid, after.st_gid, after.st_mode)
    assert before.st_ino != after.st_ino
    assert names_in(cache.parent) == {"cache"}, "nothing is left aside"
    assert shown["metrics"]["removed_files"]["value"] == 50
    assert shown["metrics"]["freed_bytes"]["value"] >= 50 * 5000
    checks = checks_by_name(shown)
    assert [checks[name]["status"] for name in (CLEARED, BEFORE, AFTER)] == ["passed"] * 3
    assert "larger than 100.0 KiB" in checks[CLEARED]["observed"]


@pytest.mark.parametrize("kind", ["directory", "nginx"])
def test_a_small_young_or_empty_cache_needs_nothing(kind: str, cache: Path) -> None:
    empty = clear(cache, kind=kind)
    assert not empty["changed"]
    assert checks_by_name(empty)[CLEARED]["observed"] == "empty: not due"
    fill_like_nginx(cache)
    inode = cache.stat().st_ino
    shown = clear(cache, kind=kind, clear_when={"larger_than": "10MiB", "older_than": "1d"})
    assert not shown["changed"]
    assert checks_by_name(shown)[CLEARED]["status"] == "passed"
    assert cache.stat().st_ino == inode
    assert BEFORE not in checks_by_name(shown), "nothing is asked of the application when nothing is due"


def test_age_is_that_of_the_oldest_file(cache: Path) -> None:
    make_file(cache / "new")
    make_file(cache / "old", age_days=2)
    assert not clear(cache, clear_when={"older_than": "3d"})["changed"]
    assert clear(cache, clear_when={"older_than": "1d"})["changed"]
    assert names_in(cache) == set()


@pytest.mark.parametrize("kind", ["directory", "nginx"])
def test_check_mode_says_what_it_would_do_and_does_nothing(
    kind: str, cache: Path, application: SmallApplication
) -> None:
    fill_like_nginx(cache)
    before = names_in(cache.parent)
    shown = clear(cache, check=True, kind=kind, probe={"urls": [f"{application.url}/health"]})
    assert shown["changed"]
    assert shown["changes"][0]["after"] == "empty"
    assert names_in(cache.parent) == before
    assert application.requests == []


@pytest.mark.parametrize("levels", [(1, 2), (2, 2), (1, 2, 2), (2,)])
def test_a_cache_of_nginx_is_cleared_where_it_is(levels: tuple[int, ...], cache: Path) -> None:
    files = fill_like_nginx(cache, levels=levels)
    in_transit = make_file(files[0].with_name(files[0].name + ".0000000042"))
    inode = cache.stat().st_ino
    shown = clear(cache, kind="nginx")
    assert not shown["failed"], shown["msg"]
    assert cache.stat().st_ino == inode
    assert [path for path in cache.rglob("*") if path.is_file()] == [in_transit]
    assert shown["metrics"]["removed_files"]["value"] == 50


def test_without_a_probe_it_is_unknown_whether_the_application_answers(cache: Path) -> None:
    fill(cache)
    assert checks_by_name(clear(cache))[AFTER]["status"] == "unknown"


def test_listed_addresses_are_warmed_up_before_the_latency_is_measured(
    cache: Path, application: SmallApplication
) -> None:
    fill(cache)
    application.page("/page/1")
    application.compute_seconds = 1.5
    shown = clear(
        cache,
        probe={**PATIENT, "urls": [f"{application.url}/page/1"]},
        warm_up_urls=[f"{application.url}/page/2", f"{application.url}/moved"],
    )
    assert not shown["failed"], shown["msg"]
    assert checks_by_name(shown)[WARM]["status"] == "passed"
    assert {path.name for path in cache.iterdir()} == {"_page_1", "_page_2"}
    assert shown["metrics"]["cold_latency_of_c"]["value"] > 1.5
    assert shown["metrics"]["latency_of_c"]["value"] < shown["metrics"]["cold_latency_of_c"]["value"]
    assert application.requests == ["/page/1"] * 6 + ["/page/2", "/moved"] + ["/page/1"] * 5


def test_a_warm_up_address_that_does_not_answer_well_fails(cache: Path, application: SmallApplication) -> None:
    fill(cache)
    shown = clear(cache, warm_up_urls=[f"{application.url}/page/2", f"{application.url}/missing"])
    assert shown["failed"]
    assert "/missing: status 404" in checks_by_name(shown)[WARM]["observed"]


def test_an_application_that_is_slower_afterwards_fails(cache: Path, application: SmallApplication) -> None:
    fill(cache)
    application.page("/page/1")
    application.compute_seconds = 1
    application.keeps = False
    shown = clear(cache, probe={"urls": [f"{application.url}/page/1"]})
    assert shown["failed"]
    check = checks_by_name(shown)[AFTER]
    assert check["status"] == "failed"
    assert re.search(r"/page/1: .*, before .*, allowed [2-9]\d\d ms", check["observed"])


def test_no_cache_is_skipped_with_a_reason(tmp_path: Path) -> None:
    shown = run_module("cache_clearing", {"state_dir": str(tmp_path / "state"), "caches": []})
    assert shown["skipped"]
    assert "cache_clearing_caches" in shown["skip_reason"]


def test_readers_never_see_half_a_cache(cache: Path) -> None:
    """Whoever reads by the cache's path sees an index with all it lists, or an empty directory, and never none."""
    entries = [f"{number % 20}/{number}" for number in range(600)]
    stop = threading.Event()
    violations: list[str] = []
    views = {"full": 0, "empty": 0}

    def read() -> None:
        while not stop.is_set():
            try:
                inode = cache.stat().st_ino
                try:
                    listed = json.loads((cache / "index.json").read_text())
                except FileNotFoundError:
                    listed = []
                missing = [entry for entry in listed if not (cache / entry).exists()]
                # Only a look that began and ended at one and the same directory says anything about it.
                if cache.stat().st_ino != inode:
                    continue
            except FileNotFoundError:
                violations.append("the directory was missing")
                continue
            if missing:
                violations.append(f"{len(missing)} of {len(listed)} entries were missing")
            views["full" if listed else "empty"] += 1

    def wait_for_looks_at(kind: str) -> None:
        before = views[kind]
        wait_until(lambda: views[kind] > before + 1, f"readers to see the {kind} cache")

    for _round in range(4):
        for entry in entries:
            make_file(cache / entry)
        (cache / "index.json").write_text(json.dumps(entries))
        stop.clear()
        readers = [threading.Thread(target=read) for _number in range(3)]
        for reader in readers:
            reader.start()
        try:
            wait_for_looks_at("full")
            shown = clear(cache)
            wait_for_looks_at("empty")
        finally:
            stop.set()
            for reader in readers:
                reader.join()
        assert shown["changed"]
        assert names_in(cache) == set()
    assert violations == []
