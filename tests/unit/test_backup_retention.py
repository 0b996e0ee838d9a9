"""What is due and what may go: examples, and laws that hold for any history."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.retention import (
    Known,
    Rules,
    decide,
    expirable,
    is_whole,
    newest_whole,
    reasons_to_stay,
    shrunk,
)

NOW = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
DAILY = {"interval": 20 * HOUR, "full_every": 7 * DAY}


def full(label: str, age: timedelta, **more: bool) -> Known:
    return Known(label, "full", (label,), NOW - age, **more)


def incremental(label: str, parent: Known, age: timedelta, **more: bool) -> Known:
    return Known(label, "incremental", (*parent.chain, label), NOW - age, **more)


def test_without_a_backup_a_full_one_is_due() -> None:
    assert decide([], NOW, **DAILY)[:3] == (True, "full", "")


@pytest.mark.parametrize(("age", "due"), [(0 * HOUR, False), (19 * HOUR, False), (20 * HOUR, True), (9 * DAY, True)])
def test_a_backup_is_due_when_the_newest_reaches_the_interval(age: timedelta, due: bool) -> None:
    assert decide([full("f", age)], NOW, **DAILY).due is due


def test_an_incremental_one_builds_on_the_newest_until_the_full_one_is_too_old() -> None:
    first = full("f", 3 * DAY)
    second = incremental("i", first, 1 * DAY)
    assert decide([first, second], NOW, **DAILY)[:3] == (True, "incremental", "i")
    old = full("f", 7 * DAY)
    assert decide([old, incremental("i", old, 1 * DAY)], NOW, **DAILY).type == "full"


def test_a_damaged_newest_backup_is_no_reason_to_rest_or_to_build_on_an_older_one() -> None:
    first = full("f", 3 * DAY)
    damaged = incremental("i", first, 1 * HOUR, sound=False)
    decision = decide([first, damaged], NOW, **DAILY)
    assert (decision.due, decision.type) == (True, "full")
    assert "i or what it builds on is damaged" in decision.why


def test_a_chain_without_its_full_one_is_worth_nothing() -> None:
    lost = full("f", 3 * DAY)
    decision = decide([incremental("i", lost, 1 * HOUR)], NOW, **DAILY)
    assert (decision.due, decision.why) == (True, "none of the 1 backups is sound")


def test_a_server_that_knows_no_incremental_backups_gets_full_ones_and_the_reason() -> None:
    decision = decide([full("f", 1 * DAY)], NOW, **DAILY, incremental_refused="summarize_wal is off")
    assert decision == (True, "full", "", "summarize_wal is off")


def test_a_backup_from_the_future_is_no_reason_to_rest() -> None:
    decision = decide([full("f", -30 * DAY)], NOW, **DAILY)
    assert (decision.due, decision.type) == (True, "full")
    assert "clock" in decision.why


def test_kept_are_the_newest_full_ones_with_their_chains_and_what_is_young() -> None:
    fulls = [full(f"f{age}", age * DAY) for age in (60, 50, 40, 20, 5)]
    chain = incremental("i39", fulls[2], 39 * DAY)
    going = expirable([*fulls, chain], NOW, Rules(2, 30 * DAY))
    assert list(going) == ["i39", "f60", "f50", "f40"]
    going = expirable([*fulls, chain], NOW, Rules(3, 30 * DAY))
    assert list(going) == ["f60", "f50"]


def test_the_newest_proven_chain_outlives_every_limit() -> None:
    old = full("old", 90 * DAY)
    proven = incremental("proven", old, 89 * DAY, proven=True)
    later = incremental("later", proven, 88 * DAY)
    going = expirable([old, proven, later, full("f", 1 * DAY)], NOW, Rules(1, DAY))
    assert list(going) == ["later"]


def test_where_nothing_can_be_restored_nothing_is_removed() -> None:
    damaged = [full(f"f{age}", age * DAY, sound=False) for age in (90, 60)]
    assert expirable(damaged, NOW, Rules(1, DAY)) == {}


def history(chance: random.Random) -> list[Known]:
    """A random history: chains, damage, proofs, backups in use, clocks that were changed, full ones that were lost."""
    backups: list[Known] = []
    for number in range(chance.randrange(1, 14)):
        age = timedelta(hours=chance.uniform(-50, 2400))
        more = {"sound": chance.random() > 0.25, "proven": chance.random() > 0.7, "in_use": chance.random() > 0.9}
        if backups and chance.random() < 0.6:
            backups.append(incremental(f"b{number}", chance.choice(backups), age, **more))
        else:
            backups.append(full(f"b{number}", age, **more))
    return [backup for backup in backups if chance.random() > 0.08]


def some_rules(chance: random.Random) -> Rules:
    counts = [chance.choice((0, 0, 1, 3, 7, 12)) for _rule in range(3)]
    return Rules(chance.randrange(0, 4), timedelta(days=chance.randrange(0, 60)), *counts)


def test_over_any_history_what_is_needed_stays() -> None:
    chance = random.Random(7)
    removed = 0
    for _round in range(4000):
        backups = history(chance)
        rules = some_rules(chance)
        going = expirable(backups, NOW, rules)
        by_label = {backup.label: backup for backup in backups}
        left = {label: backup for label, backup in by_label.items() if label not in going}
        reasons = reasons_to_stay(backups, NOW, rules)
        assert {label for label, why in reasons.items() if why} == set(left), "each that stays has its reason"
        removed += len(going)
        best = newest_whole(backups)
        assert newest_whole(left.values()) == best
        if best is None:
            assert not going
            continue
        for backup in left.values():
            assert not set(backup.chain) & set(going), "a kept backup lost what it builds on"
        proven = [b for b in backups if b.proven and is_whole(b, by_label)]
        if proven:
            newest = max(proven, key=lambda backup: backup.finished)
            assert set(newest.chain) <= set(left), "all that the newest proven one needs"
        assert not [label for label in going if by_label[label].in_use]
        assert not [label for label in going if NOW - by_label[label].finished < rules.keep_within]
        sound = sorted((b.finished, b.label) for b in backups if b.type == "full" and b.sound)
        assert all(label in left for _finished, label in sound[-max(1, rules.keep_full) :])
        check_calendar(backups, left, rules)
        assert expirable(list(left.values()), NOW, rules) == {}, "a second run removes nothing more"
    assert removed > 2000


def check_calendar(backups: list[Known], left: dict[str, Known], rules: Rules) -> None:
    """The newest restorable backup of each of the last days, weeks and months that have one is left."""
    by_label = {backup.label: backup for backup in backups}
    whole = [backup for backup in backups if is_whole(backup, by_label)]
    for count, period in (
        (rules.keep_daily, lambda moment: moment.date()),
        (rules.keep_weekly, lambda moment: moment.date().isocalendar()[:2]),
        (rules.keep_monthly, lambda moment: (moment.year, moment.month)),
    ):
        newest = {}
        for backup in sorted(whole, key=lambda backup: backup.finished):
            newest[period(backup.finished)] = backup.label
        for key in sorted(newest)[max(0, len(newest) - count) :]:
            assert newest[key] in left


def test_a_year_of_daily_backups_is_thinned_to_days_weeks_and_months() -> None:
    backups = [full(f"{age:03d}", age * DAY) for age in range(400)]
    rules = Rules(1, timedelta(0), keep_daily=7, keep_weekly=4, keep_monthly=12)
    reasons = reasons_to_stay(backups, NOW, rules)
    stay = [label for label, why in reasons.items() if why]
    # Today is a Saturday, 21 November: the newest of a week is a Sunday's, that of a month its last day's.
    assert stay[:7] == [f"{age:03d}" for age in range(7)]
    assert [label for label in stay if any(why.startswith("weekly") for why in reasons[label])] == [
        *("000", "006", "013", "020")
    ]
    months = [label for label in stay if any(why.startswith("monthly") for why in reasons[label])]
    assert len(months) == 12
    assert months[:3] == ["000", "021", "052"]
    assert len(stay) <= 7 + 4 + 12
    assert "daily: the newest of 2026-11-21" in reasons["000"]


def test_days_without_backups_do_not_use_up_the_rule() -> None:
    backups = [full(f"{age}", age * DAY) for age in (30, 31, 40)]
    assert expirable(backups, NOW, Rules(1, timedelta(0), keep_daily=3)) == {}


def test_a_kept_incremental_one_keeps_its_chain_and_says_so() -> None:
    first = full("f", 40 * DAY)
    second = incremental("i", first, 39 * DAY)
    later = incremental("j", second, 38 * DAY)
    other = full("g", 1 * DAY)
    rules = Rules(1, timedelta(0), keep_monthly=2)
    reasons = reasons_to_stay([first, second, later, other], NOW, rules)
    assert reasons["j"] == ["monthly: the newest of 2026-10"]
    assert reasons["i"] == reasons["f"] == ["j builds on it"]


def test_killed_between_two_removals_no_chain_is_ever_cut_below() -> None:
    chance = random.Random(8)
    for _round in range(1000):
        backups = history(chance)
        left = {backup.label: backup for backup in backups}
        for label in expirable(backups, NOW, Rules(1, timedelta(0))):
            del left[label]
            assert not [other for other in left.values() if label in other.chain]


# -- backups that lack a store, because it could not be had --


def lacking(label: str, age: timedelta, on: Known | None = None) -> Known:
    more: dict[str, Any] = {"lacking": True, "absent": ("restic",)}
    made = incremental(label, on, age) if on else full(label, age)
    return made._replace(**more)


def test_one_that_lacks_a_store_is_young_enough_only_while_that_cannot_be_had() -> None:
    known = [full("f", 2 * DAY), lacking("g", 1 * HOUR)]
    assert decide(known, NOW, **DAILY, unavailable={"restic"}).due is False
    decision = decide(known, NOW, **DAILY)
    assert decision[:3] == (True, "incremental", "g")
    assert "lacks restic" in decision.why
    # Of one that has a part of it, the next is made in its time.
    assert decide([known[1]._replace(absent=())], NOW, **DAILY).due is False


def test_the_only_one_with_the_files_stays_however_many_without_them_follow() -> None:
    known = [full("old", 300 * DAY), *(lacking(f"g{age}", age * DAY) for age in range(200, 0, -20))]
    rules = Rules(1, timedelta(0), keep_daily=2, keep_monthly=1)
    assert "old" not in expirable(known, NOW, rules)
    assert "the newest that lacks nothing" in reasons_to_stay(known, NOW, rules)["old"]


def test_no_rule_counts_one_that_lacks_a_store_in_the_place_of_one_that_does_not() -> None:
    """Whatever stays while there are none of them, stays when there are some."""
    chance = random.Random(9)
    saved = 0
    for _round in range(700):
        backups, rules = history(chance), some_rules(chance)
        others = []
        for number in range(chance.randrange(1, 6)):
            age = timedelta(hours=chance.uniform(-50, 2400))
            on = chance.choice(backups) if backups and chance.random() < 0.5 else None
            others.append(lacking(f"l{number}", age, on))
        before = set(expirable(backups, NOW, rules))
        assert set(expirable([*backups, *others], NOW, rules)) - {one.label for one in others} <= before
        pretended = [one._replace(lacking=False) for one in others]
        saved += len(set(expirable([*backups, *pretended], NOW, rules)) & {b.label for b in backups} - before)
    assert saved > 20, "else this shows nothing"


def test_a_backup_half_the_size_of_the_last_is_suspicious() -> None:
    assert not shrunk(10, [])
    assert not shrunk(60, [10, 100])
    assert shrunk(40, [10, 100])
