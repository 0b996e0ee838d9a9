"""How a restore test judges catalogs, assertions and paths, and which backup it starts from, without a server."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.catalog.comparison import differences, is_behind
from ansible_collections.wellkept.maintenance.plugins.module_utils.catalog.record import certain
from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore.assertions import judge
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore.file_rows import _hex, _place_of
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore.remote_repository import _choose, _is_wanted
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore.targets import Target, is_reached, parse

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def test_catalogs_differ_by_name_and_property_and_secrets_are_not_shown() -> None:
    before = {"role a": {"password": "hash-1", "superuser": False}, "view v": {"definition": "x"}, "index i": {}}
    after = {"role a": {"password": "hash-2", "superuser": True}, "view v": {"definition": "x"}, "table t": {}}
    assert differences(before, after) == [
        "index i is missing",
        "role a: its password differs, its superuser is True instead of False",
        "table t should not be there",
    ]
    assert differences(before, after, {"index i", "role a", "table t"}) == []
    assert "hash" not in str(differences(before, after))


def test_only_what_both_listings_show_is_certain() -> None:
    before = {"a": {"x": 1}, "b": {"x": 1}, "c": {"x": 1}}
    same, unsure = certain(before, {"a": {"x": 1}, "b": {"x": 2}, "d": {}})
    assert same == {"a": {"x": 1}}
    assert unsure == ["b", "c", "d"]


@pytest.mark.parametrize(
    ("value", "least", "increment", "behind"),
    [(5, 5, 1, False), (37, 5, 1, False), (4, 5, 1, True), (None, 5, 1, True), (None, None, 1, False),
     (-5, -5, -1, False), (-4, -5, -1, True), (-37, -5, -1, False)],
)  # fmt: skip
def test_a_sequence_may_be_ahead_and_never_behind(value: Any, least: Any, increment: int, behind: bool) -> None:
    assert is_behind(value, least, increment) is behind


@pytest.mark.parametrize(
    ("expects", "value", "passed"),
    [
        ({"expected": "true"}, True, True), ({"expected": "3"}, 3, True), ({"expected": "3"}, 4, False),
        ({"min": "1"}, 1, True), ({"min": "1"}, 0, False), ({"min": "0.5"}, Decimal("0.50"), True),
        ({"min": "1"}, None, False), ({"min": "0"}, True, False), ({"min": "1"}, "many", False),
        ({"max": "10"}, 10, True), ({"max": "10"}, 11, False), ({"max": "10"}, float("nan"), False),
        ({"min": "1", "max": "10"}, 5, True), ({"min": "1", "max": "10"}, 11, False),
        ({"max_age": "1h"}, NOON - timedelta(minutes=59), True), ({"max_age": "1h"}, NOON - timedelta(hours=2), False),
        ({"max_age": "1h"}, (NOON - timedelta(minutes=5)).replace(tzinfo=None), True),
        ({"max_age": "1d"}, date(2026, 11, 21), True), ({"max_age": "1d"}, date(2026, 11, 19), False),
        ({"max_age": "1h"}, None, False), ({"max_age": "1h"}, "2026-11-21", False),
    ],
)  # fmt: skip
def test_assertions_are_judged_by_each_form(expects: dict[str, str], value: Any, passed: bool) -> None:
    assert judge(expects, value, NOON).passed is passed


def test_a_root_is_found_in_the_directory_that_holds_it_and_in_no_other() -> None:
    places = {"/srv/app": "/scratch/srv/app", "/srv/application": "/scratch/srv/application"}
    assert _place_of("/srv/app/uploads/", places) == "/scratch/srv/app/uploads"
    assert _place_of("/srv/application", places) == "/scratch/srv/application"
    assert _place_of("/srv/app/../other", places) == ""
    assert _place_of("/srv", places) == ""
    assert _hex(memoryview(b"\x01\xff")) == _hex("01FF ") == "01ff"


def described(label: str, moment: str, stop: str) -> dict[str, Any]:
    return {"label": label, "restore_point": {"time": moment}, "stop_lsn": stop}


def test_the_newest_backup_before_the_target_is_fetched() -> None:
    backups = [
        described("3", "2026-11-21T03:00:00.000Z", "0/5000000"),
        described("1", "2026-11-19T03:00:00.000Z", "0/1000000"),
        described("2", "2026-11-20T03:00:00.000Z", "0/3000000"),
    ]  # fmt: skip

    def chosen(text: str, label: str = "") -> str:
        return str(_choose(list(backups), parse(text), label)["label"])

    assert chosen("newest") == chosen("backup") == chosen("name:x") == "3"
    assert chosen("time:2026-11-21T02:59:00Z") == "2"
    assert chosen("lsn:0/4000000") == "2"
    assert chosen("newest", "1") == "1"
    for text, label in (("time:2026-11-01T00:00:00Z", ""), ("lsn:0/100", ""), ("newest", "9")):
        with pytest.raises(MaintenanceError):
            chosen(text, label)


def test_of_an_archive_segments_from_the_backup_on_and_all_histories_are_wanted() -> None:
    start = "0000000000000005"
    assert _is_wanted("00000001/000000010000000000000005.zst", start)
    assert _is_wanted("00000002/000000020000000100000000", start)
    assert _is_wanted("00000002/00000002.history", start)
    assert not _is_wanted("00000001/000000010000000000000004.zst", start)


def test_recovery_has_reached_the_target_only_if_the_server_says_so() -> None:
    said = 'LOG:  recovery stopping at restore point "noon", time 2026-11-21 12:00:00+00'
    assert is_reached(Target("name", "noon"), said)
    assert not is_reached(Target("name", "night"), said)
    assert not is_reached(Target("newest", "0/3000060"), said)
    assert not is_reached(Target("name", "noon"), "LOG:  database system is ready to accept connections")
