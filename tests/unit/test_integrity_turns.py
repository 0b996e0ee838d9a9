"""What is looked at in a run, in which order, and what is remembered of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.integrity import looking, memory, things, turns
from ansible_collections.wellkept.maintenance.plugins.module_utils.integrity.looking import Verdict, state_of_refusal
from ansible_collections.wellkept.maintenance.plugins.module_utils.integrity.memory import Entry, Memory
from ansible_collections.wellkept.maintenance.plugins.module_utils.integrity.rounds import entry_after
from ansible_collections.wellkept.maintenance.plugins.module_utils.integrity.things import Thing

DAY = 86400.0
NOW = 100 * DAY
RULES = turns.Rules(6 * DAY, False, NOW)


def thing(name: str, rank: int = things.ORDINARY, kind: str = things.INDEX, size: int = 8192) -> Thing:
    return Thing(kind, "shop", f"5/{name}", 1, f"public.{name}", "public.t", 7, size, rank)


def remembering(tmp_path: Path, **entries: Entry) -> Memory:
    remembered = Memory(str(tmp_path), "cluster")
    remembered.entries = {f"5/{name}": entry for name, entry in entries.items()}
    return remembered


def sound(days_ago: float, **more: float) -> Entry:
    when = NOW - days_ago * DAY
    return Entry(file=7, seen=when, tried=when, checked=when, state=memory.SOUND)._replace(**more)


@pytest.mark.parametrize(
    ("entry", "due"),
    [
        (Entry(), True),
        (sound(1), False),
        (sound(6), True),
        (sound(1)._replace(file=8), True),
        (sound(1)._replace(state=memory.DAMAGED), True),
        (sound(1)._replace(next_block=9), True),
        (sound(-1), True),
    ],
    ids=["never seen", "fresh", "old", "rebuilt", "damaged", "half done", "clock was wrong"],
)
def test_what_is_due(entry: Entry, due: bool) -> None:
    assert turns.is_due(thing("x"), entry, RULES) is due


def test_looking_closely_makes_indexes_due_that_were_only_glanced_at() -> None:
    closely = RULES._replace(heap_all_indexed=True)
    assert turns.is_due(thing("x"), sound(1), closely)
    assert not turns.is_due(thing("x"), sound(1)._replace(level="heapallindexed"), closely)
    assert not turns.is_due(thing("x", kind=things.TABLE), sound(1), closely)


def test_the_damaged_come_first_then_those_that_waited_longest_and_of_them_the_most_important(tmp_path: Path) -> None:
    remembered = remembering(
        tmp_path,
        sick=sound(1)._replace(state=memory.DAMAGED),
        old=sound(20),
        older_rows=sound(30),
        older_unique=sound(30),
    )
    listed = [
        thing("old", things.CATALOG), thing("new_rows", things.ROWS), thing("older_rows", things.ROWS),
        thing("new_catalog", things.CATALOG), thing("older_unique", things.UNIQUE), thing("sick", things.LARGE_VALUES),
    ]  # fmt: skip
    names = [one.name.partition(".")[2] for one in turns.in_order(listed, remembered, RULES)]
    assert names == ["sick", "new_catalog", "new_rows", "older_unique", "older_rows", "old"]


def test_everything_has_its_turn_when_each_run_has_time_for_two(tmp_path: Path) -> None:
    remembered = Memory(str(tmp_path), "cluster")
    listed = [thing(f"x{number}", rank) for number, rank in enumerate([0, 0, 0, 1, 1, 2, 3])]
    seen: list[str] = []
    for run in range(4):
        rules = RULES._replace(now=NOW + run * 7 * DAY)
        for one in turns.in_order(listed, remembered, rules)[:2]:
            seen.append(one.name)
            verdict = Verdict(looking.SOUND, seconds=1.0, size=8192)
            remembered.entries[one.key] = entry_after(one, remembered.of(one.key), verdict, rules)
    assert set(seen) == {one.name for one in listed}, "nothing is starved by what is more important"
    assert seen[:3] == ["public.x0", "public.x1", "public.x2"]


def test_what_does_not_fit_is_not_begun_except_as_the_first(tmp_path: Path) -> None:
    slow = sound(20)._replace(seconds=100.0, size=8192)
    may = {"budget": 60.0, "left": 30.0}
    assert not turns.may_begin(thing("x"), slow, RULES, is_first=False, **may)
    assert turns.may_begin(thing("x"), slow, RULES, is_first=True, **may)
    assert turns.may_begin(thing("x"), sound(20), RULES, is_first=False, **may)
    assert not turns.may_begin(thing("x"), sound(20), RULES, is_first=True, budget=60.0, left=0.0)


def test_what_took_longer_than_a_whole_run_is_not_tried_again_with_the_same_time() -> None:
    tried = entry_after(thing("x"), Entry(), Verdict(looking.TOO_LONG, seconds=60.0), RULES)
    assert tried.checked == 0
    assert not turns.may_begin(thing("x"), tried, RULES, budget=60.0, left=60.0, is_first=True)
    assert turns.may_begin(thing("x"), tried, RULES, budget=120.0, left=120.0, is_first=True)
    assert turns.may_begin(thing("x"), tried, RULES, budget=0.0, left=float("inf"), is_first=True)


def test_a_table_is_gone_on_with_where_it_was_left_and_what_crashed_is_left_alone() -> None:
    half = entry_after(thing("x"), sound(20), Verdict(looking.TOO_LONG, next_block=512), RULES)
    assert (half.next_block, half.checked, half.gave_up_after) == (512, NOW - 20 * DAY, 0.0)
    whole = entry_after(thing("x"), half, Verdict(looking.SOUND), RULES)
    assert (whole.next_block, whole.checked) == (0, NOW)
    crashed = entry_after(thing("x"), sound(20), Verdict(looking.CRASHED), RULES)
    assert not turns.may_begin(thing("x"), crashed, RULES, budget=0, left=1e9, is_first=True)
    assert turns.may_begin(thing("x")._replace(file=8), crashed, RULES, budget=0, left=1e9, is_first=True)


def test_lateness_counts_from_when_something_was_first_seen(tmp_path: Path) -> None:
    remembered = remembering(tmp_path, fresh=Entry(file=7, seen=NOW - DAY), lost=Entry(file=7, seen=NOW - 40 * DAY),
                             old=sound(40), good=sound(10))  # fmt: skip
    late = turns.overdue([thing(name) for name in ("fresh", "lost", "old", "good")], remembered, NOW, 35 * DAY)
    assert [one.name for one in late] == ["public.lost", "public.old"]


def test_the_memory_is_written_for_its_owner_and_read_again(tmp_path: Path) -> None:
    remembered = remembering(tmp_path / "deep", x=sound(1))
    remembered.sequences = {"5/9": [[1.0, 2.0]]}
    remembered.save()
    again = Memory(str(tmp_path / "deep"), "cluster")
    assert (again.entries, again.sequences, again.remark) == (remembered.entries, {"5/9": [[1.0, 2]]}, "")
    assert Path(again.path).stat().st_mode & 0o777 == 0o600
    again.forget_others(set(), {"5"})
    assert again.entries == {}


@pytest.mark.parametrize("content", ["", "[]", '{"format": 99}', '{"format": 1, "things": {"a": {"file": []}}}'])
def test_a_memory_that_makes_no_sense_is_begun_anew(tmp_path: Path, content: str) -> None:
    (tmp_path / "cluster.json").write_text(content)
    remembered = Memory(str(tmp_path), "cluster")
    assert remembered.entries == {}
    assert "looked at anew" in remembered.remark


@pytest.mark.parametrize(
    ("sqlstate", "state"),
    [
        ("XX001", looking.DAMAGED),
        ("XX002", looking.DAMAGED),
        ("58030", looking.DAMAGED),
        ("55P03", looking.LOCKED),
        ("57014", looking.PUT_OFF),
        ("40001", looking.PUT_OFF),
        ("42P01", looking.VANISHED),
        ("42501", looking.NOT_CHECKED),
        ("0A000", looking.NOT_CHECKED),
        ("", looking.CRASHED),
        ("57P02", looking.CRASHED),
    ],
)
def test_a_refusal_is_damage_only_when_the_server_says_so(sqlstate: str, state: str) -> None:
    assert state_of_refusal(sqlstate, "said").state == state


@pytest.mark.parametrize(("age", "restarted"), [(3.0, True), (500.0, False), (None, True)])
def test_a_lost_connection_is_the_servers_death_only_when_its_processes_are_new(
    age: float | None, restarted: bool
) -> None:
    assert looking.has_restarted(age, elapsed=10.0) is restarted


def test_what_was_given_up_is_foreseen_to_take_longer_the_next_time() -> None:
    given_up = entry_after(thing("x"), Entry(), Verdict(looking.TOO_LONG, seconds=20.0), RULES)
    assert turns.predicted_seconds(thing("x"), given_up, RULES) == 40.0
    assert turns.predicted_seconds(thing("x")._replace(file=8), given_up, RULES) < 1
