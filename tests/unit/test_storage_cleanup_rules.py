"""How cleanup rules are read, and which files they let go."""

from __future__ import annotations

import os
import random
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.wellkept.maintenance.plugins.module_utils.storage.rules import (
    Ranking,
    decide,
    key_of,
    name_filter,
    read_rules,
)

NOW = 1_800_000_000.0
DEFAULTS: dict[str, Any] = {
    "name": None,
    "path": "/srv/app/tmp",
    "patterns": ["*"],
    "exclude": [],
    "older_than": None,
    "max_bytes": None,
    "max_files": None,
    "min_keep": 0,
    "recurse": False,
    "remove_empty_directories": False,
    "remove_links": False,
    "private": False,
    "missing_ok": False,
}


def rule(**options: Any) -> Any:
    return read_rules([{**DEFAULTS, **options}])[0]


def file_status(age: float, blocks: int, inode: int, links: int = 1, changed: float = 0) -> os.stat_result:
    mtime_ns = int((NOW - age) * 1e9)
    times = {"st_mtime": NOW - age, "st_ctime_ns": int((NOW - changed) * 1e9)}
    plain = (0o100644, inode, 1, links, 0, 0, blocks * 512, 0, int(NOW - age), 0)
    return os.stat_result(plain, {"st_mtime_ns": mtime_ns, "st_blocks": blocks, **times})


def going(some_rule: Any, files: list[os.stat_result]) -> set[int]:
    ranking = Ranking(some_rule)
    for status in files:
        ranking.add(status)
    limits = decide(some_rule, NOW, ranking)
    return {status.st_ino for status in files if limits.lets_go(status)}


def test_a_file_goes_when_it_is_older_than_the_limit_and_not_before() -> None:
    files = [file_status(86399, 8, 1), file_status(86401, 8, 2)]
    assert going(rule(older_than="1d"), files) == {2}


def test_what_comes_in_while_we_work_is_left_to_the_next_run_however_old_it_looks() -> None:
    limits = decide(rule(older_than="1d"), NOW, None)
    old = file_status(90000, 8, 1, changed=90000)
    moved_in = file_status(90000, 8, 1, changed=-1)
    assert limits.lets_go(old)
    assert limits.lets_go(moved_in)
    assert limits.verifying(NOW).lets_go(old)
    assert not limits.verifying(NOW).lets_go(moved_in)
    assert not limits.verifying(NOW).lets_directory_go(moved_in)


def test_a_file_with_a_time_in_the_future_stays() -> None:
    assert going(rule(older_than="0s"), [file_status(-100, 8, 1)]) == set()


def test_the_oldest_go_until_the_rest_is_small_enough() -> None:
    files = [file_status(age, 8, age) for age in (5, 1, 4, 2, 3)]
    assert going(rule(max_bytes="8KiB"), files) == {3, 4, 5}
    assert going(rule(max_files=4), files) == {5}
    assert going(rule(max_files=0), files) == {1, 2, 3, 4, 5}


def test_any_criterion_is_enough_but_the_newest_are_protected_from_all() -> None:
    files = [file_status(age, 8, age) for age in range(1, 11)]
    assert going(rule(older_than="8s", max_files=5), files) == {6, 7, 8, 9, 10}
    assert going(rule(older_than="3s", max_files=5), files) == {4, 5, 6, 7, 8, 9, 10}
    assert going(rule(older_than="0s", max_bytes="0", min_keep=3), files) == {4, 5, 6, 7, 8, 9, 10}
    assert going(rule(older_than="0s", min_keep=30), files) == set()


def test_hard_links_of_one_file_count_once_and_stay_or_go_together() -> None:
    files = [file_status(9, 16, 9, links=2), file_status(1, 8, 1), file_status(9, 16, 9, links=2)]
    assert going(rule(max_bytes="12KiB"), files) == set()
    assert going(rule(max_bytes="11KiB"), files) == {9}


@pytest.mark.parametrize("seed", range(60))
def test_one_pass_ranking_agrees_with_sorting_everything(seed: int) -> None:
    dice = random.Random(seed)
    files = [file_status(dice.randint(0, 40), dice.randint(0, 64), inode) for inode in range(dice.randint(0, 80))]
    max_files = dice.choice([None, dice.randint(0, 90)])
    max_bytes = dice.randint(0, 64 * 512 * 40)
    min_keep = dice.choice([0, dice.randint(0, 20)])
    newest_first = sorted(files, key=key_of, reverse=True)
    expected, total = set(), 0
    for place, status in enumerate(newest_first):
        total += status.st_blocks * 512
        if (total > max_bytes or (max_files is not None and place >= max_files)) and place >= min_keep:
            expected.add(status.st_ino)
    assert going(rule(max_bytes=str(max_bytes), max_files=max_files, min_keep=min_keep), files) == expected


def test_ranking_remembers_only_what_may_stay() -> None:
    ranking = Ranking(rule(max_files=10))
    for inode in range(10_000):
        ranking.add(file_status(inode, 8, inode))
    assert len(ranking._staying) == 10


def test_patterns_are_compared_with_names_that_may_hold_anything() -> None:
    wanted = name_filter(["*.tmp", "sess_*"], ["*.keep.tmp"])
    assert wanted("a.tmp")
    assert wanted("sess_1")
    assert wanted("new\nline.tmp")
    assert wanted(os.fsdecode(b"\xff\xfe.tmp"))
    assert not wanted("a.keep.tmp")
    assert not wanted("a.tmp\n")
    assert not wanted("a.txt")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "no criterion"),
        ({"older_than": "soon"}, "'soon' is not a duration"),
        ({"max_bytes": "lots"}, "'lots' is not a size"),
        ({"max_files": -1}, "less than 0"),
        ({"older_than": "1d", "patterns": ["a/b"]}, "'a/b'"),
        ({"older_than": "1d", "patterns": []}, "patterns is empty"),
    ],
)
def test_a_useless_rule_is_refused_with_the_reason(options: dict[str, Any], words: str) -> None:
    with pytest.raises(MaintenanceError, match="read each rule") as caught:
        rule(**options)
    assert words in caught.value.observed


def test_all_bad_rules_are_named_at_once() -> None:
    with pytest.raises(MaintenanceError) as caught:
        read_rules([{**DEFAULTS, "name": "one"}, {**DEFAULTS, "name": "two", "older_than": "x"}])
    assert "rule one" in caught.value.observed
    assert "rule two" in caught.value.observed


def test_two_rules_of_one_name_are_refused() -> None:
    with pytest.raises(MaintenanceError) as caught:
        read_rules([{**DEFAULTS, "older_than": "1d"}, {**DEFAULTS, "older_than": "2d"}])
    assert "same name" in caught.value.observed


def test_an_empty_directory_somebody_may_just_have_made_is_left_without_an_age() -> None:
    limits = decide(rule(max_files=3), NOW, None)
    assert not limits.lets_directory_go(file_status(60, 8, 1))
    assert limits.lets_directory_go(file_status(3700, 8, 1))
