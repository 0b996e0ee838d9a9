"""What the catalogs say: sequences near their end, and indexes of no use."""

from __future__ import annotations

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.integrity import indexes, sequences
from ansible_collections.wellkept.maintenance.plugins.module_utils.integrity.indexes import Index
from ansible_collections.wellkept.maintenance.plugins.module_utils.integrity.sequences import Forecast, Sequence

DAY = 86400.0
NOW = 1000 * DAY
BIG = 2**63 - 1
LIMITS = {"warn": 0.7, "fail": 0.9, "within": 90 * DAY}


def sequence(last: int | None, maximum: int = BIG, increment: int = 1, **more: object) -> Sequence:
    minimum = 1 if increment > 0 else -maximum
    usual = Sequence("shop", "5/1", "public.s", last, minimum, maximum, increment, False)
    return usual._replace(**more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("one", "used"),
    [
        (sequence(None), 0.0),
        (sequence(50, 101), 0.49),
        (sequence(2**30, bits=31), 0.5),
        (sequence(2**32, bits=31), 2.0),
        (sequence(16384, bits=15), 0.5),
        (sequence(-50, 100, -1), 0.75),
        (sequence(99, 100, cycles=True), 0.0),
        (sequence(2**30, cycles=True, bits=31), 0.5),
    ],
    ids=["unused", "own limit", "int column", "column is full", "smallint column", "falling", "cycles", "never cycles"],
)
def test_the_share_that_is_used_is_that_of_the_narrower_of_sequence_and_column(one: Sequence, used: float) -> None:
    assert one.used == pytest.approx(used, abs=0.001)


@pytest.mark.parametrize(
    ("one", "seen", "status"),
    [
        (sequence(69, 101), None, "passed"),
        (sequence(71, 101), None, "warned"),
        (sequence(91, 101), None, "failed"),
        (sequence(2, 101), Forecast(NOW + 30 * DAY, 7 * DAY), "warned"),
        (sequence(2, 101), Forecast(NOW + 30 * DAY, 1 * DAY), "passed"),
        (sequence(2, 101), Forecast(NOW + 300 * DAY, 7 * DAY), "passed"),
    ],
    ids=["enough", "warn", "fail", "soon", "soon after a burst", "in a year"],
)
def test_a_sequence_is_told_of_in_time(one: Sequence, seen: Forecast | None, status: str) -> None:
    assert sequences.status_of(one, seen, NOW, LIMITS) == status


def test_the_date_follows_from_the_pace_between_two_measurements() -> None:
    seen = sequences.forecast(sequence(600, 1000), [[NOW - 10 * DAY, 500]], NOW)
    assert seen == Forecast(pytest.approx(NOW + 40 * DAY), 10 * DAY)
    falling = sequences.forecast(sequence(-600, 1000, -1), [[NOW - 10 * DAY, -500]], NOW)
    assert falling == Forecast(pytest.approx(NOW + 40 * DAY), 10 * DAY)
    assert sequences.forecast(sequence(600, 1000), [[NOW - 60, 500]], NOW) is None, "a minute says nothing"
    assert sequences.forecast(sequence(600, 1000), [[NOW - 10 * DAY, 600]], NOW) is None
    assert sequences.forecast(sequence(600), [[NOW - 10 * DAY, 500]], NOW) is None, "not in fifty years"


def test_measurements_are_kept_for_a_while_and_not_across_a_reset() -> None:
    one = sequence(600, 1000)
    assert sequences.remember(one, [], NOW) == [[NOW, 600]]
    assert sequences.remember(one, [[NOW - 99 * DAY, 1], [NOW - DAY, 9]], NOW) == [[NOW - DAY, 9], [NOW, 600]]
    assert sequences.remember(one, [[NOW - DAY, 700]], NOW) == [[NOW, 600]], "it was set back"
    many = [[NOW - 50 * DAY + number * DAY, number] for number in range(50)]
    assert len(sequences.remember(one, many, NOW)) == sequences.MOST_POINTS


def index(name: str, scans: int | None = 0, identity: str = "a", **more: object) -> Index:
    return Index("shop", f"5/{name}", f"public.{name}", "public.t", 1000, scans, identity)._replace(**more)  # type: ignore[arg-type]


def superfluous(*found: Index) -> dict[str, str]:
    return {one.superfluous.name: one.other.name for one in indexes.duplicates(found)}


def test_of_duplicates_the_one_that_something_rests_on_stays() -> None:
    assert superfluous(index("a", 9), index("b", 5)) == {"public.b": "public.a"}
    assert superfluous(index("a", 9), index("key", 0, is_primary=True)) == {"public.a": "public.key"}
    assert superfluous(index("a", 9), index("u", 0, is_unique=True)) == {"public.a": "public.u"}
    assert superfluous(index("a", is_constraint=True), index("b", is_referenced=True)) == {}
    assert superfluous(index("a"), index("b", identity="other")) == {}
    assert superfluous(index("a", 9), index("b", is_valid=False), index("c", is_part=True)) == {"public.a": "public.c"}


def test_an_index_is_never_used_only_when_nothing_rests_on_it() -> None:
    found = [
        index("idle"), index("used", 1), index("unique", is_unique=True), index("identity", is_identity=True),
        index("part", is_part=True), index("parent", None, is_partitioned=True), index("broken", is_valid=False),
        index("small", size_bytes=1),
    ]  # fmt: skip
    assert [one.name for one in indexes.unused(found, 100)] == ["public.idle"]


def test_an_index_is_known_to_be_unused_only_since_both_it_and_the_statistics_are_known() -> None:
    one = index("idle")
    assert indexes.known_since(one, {}, NOW - 90 * DAY, NOW) == NOW, "it may have been made today"
    assert indexes.known_since(one, {one.key: NOW - 40 * DAY}, NOW - 90 * DAY, NOW) == NOW - 40 * DAY
    assert indexes.known_since(one, {one.key: NOW - 40 * DAY}, NOW - 2 * DAY, NOW) == NOW - 2 * DAY, "after a crash"


def test_an_invalid_index_that_is_being_built_is_none() -> None:
    broken = index("a", is_valid=False)
    assert indexes.invalid([broken, index("b", is_valid=False, in_work=True), index("c")]) == [broken]


@pytest.mark.parametrize(
    ("name", "words"),
    [("t_idx_ccnew", "REINDEX"), ("t_idx_ccold7", "REINDEX"), ("t_ccnewer", "CREATE INDEX"), ("t_idx", "CREATE INDEX")],
)
def test_the_name_of_an_invalid_index_says_what_left_it(name: str, words: str) -> None:
    assert words in indexes.why_invalid(index(name, is_valid=False))
