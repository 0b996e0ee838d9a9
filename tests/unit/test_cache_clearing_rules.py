"""When a cache is due, and what a cache of nginx looks like."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.caches.holding import Contents
from ansible_collections.wellkept.maintenance.plugins.module_utils.caches.latency import allowed_seconds
from ansible_collections.wellkept.maintenance.plugins.module_utils.caches.nginx import levels_of
from ansible_collections.wellkept.maintenance.plugins.module_utils.caches.wishes import read_caches, reason_to_clear
from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MaintenanceError

NOW = 1_800_000_000.0
KEY = hashlib.md5(b"https://app/").hexdigest()


def cache(**when: Any) -> Any:
    clear_when = {"older_than": None, "larger_than": None, "always": False, **when}
    common = {"name": None, "kind": "directory", "probe": None, "warm_up_urls": [], "missing_ok": False}
    return read_caches([{**common, "path": "/srv/app/cache", "clear_when": clear_when}])[0]


def test_an_empty_cache_is_never_due() -> None:
    assert reason_to_clear(cache(always=True, larger_than="0", older_than="0s"), Contents(), NOW) == ""


def test_a_cache_is_due_when_any_measurement_says_so_and_else_not() -> None:
    contents = Contents(10, 2048, NOW - 100)
    assert reason_to_clear(cache(larger_than="1KiB"), contents, NOW) == "larger than 1.0 KiB"
    assert reason_to_clear(cache(larger_than="2KiB"), contents, NOW) == ""
    assert reason_to_clear(cache(older_than="99s"), contents, NOW) == "older than 1 min 39 s"
    assert reason_to_clear(cache(older_than="100s"), contents, NOW) == ""
    assert reason_to_clear(cache(older_than="1d", larger_than="1KiB"), contents, NOW)
    assert reason_to_clear(cache(always=True), contents, NOW) == "not empty"


def test_a_cache_without_a_condition_is_refused() -> None:
    with pytest.raises(MaintenanceError) as caught:
        cache()
    assert "no condition" in caught.value.observed


@pytest.mark.parametrize(
    ("path", "levels"),
    [
        (f"{KEY[-1]}/{KEY[-3:-1]}/{KEY}", (1, 2)),
        (f"{KEY[-2:]}/{KEY[-4:-2]}/{KEY}", (2, 2)),
        (f"{KEY[-1]}/{KEY[-2]}/{KEY[-4:-2]}/{KEY}", (1, 1, 2)),
        (f"{KEY[-1]}/{KEY[-3:-1]}/{KEY}.0000000017", (1, 2)),
        (KEY, None),
        (f"{KEY[:1]}x/{KEY}", None),
        (f"{KEY[-1]}/{KEY[-2:]}/{KEY}", None),
        (f"{KEY[-1]}/{KEY[-3:-1]}/{KEY.upper()}", None),
        (f"{KEY[-1]}/{KEY[-3:-1]}/{KEY}\n", None),
        (f"{KEY[-1]}/{KEY[-3:-1]}/index.html", None),
        (f"{KEY[-1]}/{KEY[-2]}/{KEY[-3]}/{KEY[-4]}/{KEY}", None),
    ],
)
def test_only_nginx_own_layout_is_recognised(path: str, levels: tuple[int, ...] | None) -> None:
    assert levels_of(path) == levels


def test_a_sha1_store_that_is_spread_by_the_beginning_of_names_is_no_cache_of_nginx() -> None:
    name = hashlib.sha1(b"a submission").hexdigest()
    assert levels_of(f"{name[:2]}/{name[2:4]}/{name}") is None


def test_a_fast_application_may_always_take_the_minimum() -> None:
    assert allowed_seconds(0.001, 3, 0.25) == 0.25
    assert allowed_seconds(0.2, 3, 0.25) == pytest.approx(0.6)
