"""Which indexes are rebuilt, in which order, what is a leftover, and when a rebuild makes way: decisions alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.bloat.measure import IndexBloat
from ansible_collections.wellkept.maintenance.plugins.module_utils.database.lock_waits import Look, Other
from ansible_collections.wellkept.maintenance.plugins.module_utils.database.watchdog import why_stop, why_wait_no_longer
from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.wellkept.maintenance.plugins.module_utils.reindex.catalog import lost
from ansible_collections.wellkept.maintenance.plugins.module_utils.reindex.decision import (
    Left,
    Task,
    Traits,
    in_order,
    judge,
    within,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.reindex.leftovers import (
    Invalid,
    is_leftover,
    is_named_after,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.reindex.memory import DEFAULT_SPEED, Memory, cost
from ansible_collections.wellkept.maintenance.plugins.module_utils.reindex.obstacles import sum_by_device
from ansible_collections.wellkept.maintenance.plugins.module_utils.reindex.rebuild import Turn
from ansible_collections.wellkept.maintenance.plugins.module_utils.reindex.settings import (
    REINDEX_OPTIONS,
    Settings,
    read_settings,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.reindex.upserts import (
    Upserts,
    upsert_targets,
    why_not_unique,
)
from ansible_collections.wellkept.maintenance.plugins.modules.postgresql_reindex import UNSAFE, refuse_server

MB = 1_000_000


def index(name: str = "student_name", **facts: Any) -> IndexBloat:
    size = facts.pop("size_bytes", 100 * MB)
    ratio = facts.pop("bloat_ratio", 0.5)
    predicted = facts.pop("predicted_bytes", size if ratio is None else int(size * (1 - ratio)))
    values: dict[str, Any] = {
        **dict.fromkeys(field.name for field in dataclasses.fields(IndexBloat)),
        "database": "shop",
        "schema": "public",
        "name": name,
        "oid": 20000,
        "table_schema": "public",
        "table": "student",
        "table_oid": 19000,
        "table_bytes": 200 * MB,
        "access_method": "btree",
        "size_bytes": size,
        "is_unique": False,
        "is_valid": True,
        "is_catalog": False,
        "is_toast": False,
        "definition": f"CREATE INDEX {name} ON public.student USING btree (name)",
        "bloat_ratio": ratio,
        "wasted_bytes": size - predicted,
        "predicted_bytes": predicted,
        "density": 0.45,
        "fillfactor": 90,
        "tuples": 1_000_000,
        "table_tuples": 1_000_000,
        "method": "pgstatindex",
        "confidence": "high",
        "reason": "",
        **facts,
    }
    return IndexBloat(**values)


def verdict(target: IndexBloat, traits: Traits | None = None, **settings: Any) -> Task | Left | None:
    return judge(target, traits or Traits(), Settings(**settings), Memory())


def reason(target: IndexBloat, traits: Traits | None = None, **settings: Any) -> str:
    found = verdict(target, traits, **settings)
    assert isinstance(found, Left), found
    return found.reason


def test_an_index_is_rebuilt_from_30_percent_and_3_megabytes_on() -> None:
    found = verdict(index(bloat_ratio=0.3, size_bytes=40 * MB))
    assert isinstance(found, Task)
    assert found.gain == 12 * MB
    assert found.name == "shop.public.student_name"
    assert verdict(index(bloat_ratio=0.29)) is None
    assert isinstance(verdict(index(bloat_ratio=0.3, size_bytes=10 * MB)), Task)
    assert verdict(index(bloat_ratio=0.9, size_bytes=3 * MB)) is None
    assert isinstance(verdict(index(bloat_ratio=0.9, size_bytes=3 * MB), min_gain=2 * MB), Task)
    assert verdict(index(bloat_ratio=0.4), min_bloat_ratio=0.5) is None


@pytest.mark.parametrize(
    ("facts", "traits", "settings", "words", "wanted"),
    [
        ({}, {}, {"exclude_indexes": ["public.student_*"]}, "exclude_indexes", False),
        ({"is_catalog": True}, {}, {}, "system catalog", False),
        ({}, {"is_exclusion": True}, {}, "exclusion constraint", False),
        ({"confidence": "low", "reason": "estimated"}, {}, {}, "low confidence only: estimated", False),
        ({"confidence": "medium"}, {}, {"min_confidence": "high"}, "medium confidence only", False),
        ({}, {"may_reindex": False, "advice": "GRANT x"}, {}, "GRANT x", True),
        ({"is_unique": True}, {"unique_reason": "upserts"}, {}, "upserts", False),
        ({"is_unique": True}, {"unique_reason": "who knows", "unique_unknown": True}, {}, "who knows", True),
        ({"bloat_ratio": None, "method": "none", "reason": "locked"}, {}, {}, "locked", True),
        ({"bloat_ratio": None, "method": "baseline", "reason": "first sight"}, {}, {}, "first sight", False),
        ({"bloat_ratio": None, "reason": "no way", "access_method": "spgist"}, {}, {}, "no way", False),
    ],
)
def test_what_is_left_says_why_and_whether_somebody_should_see_to_it(
    facts: dict[str, Any], traits: dict[str, Any], settings: dict[str, Any], words: str, wanted: bool
) -> None:
    found = verdict(index(**facts), Traits(**traits), **settings)
    assert isinstance(found, Left)
    assert words in found.reason
    assert found.wanted is wanted


def test_low_confidence_is_enough_when_told_so_and_a_reason_against_unique_indexes_counts_for_them_alone() -> None:
    assert isinstance(verdict(index(confidence="low"), min_confidence="low"), Task)
    assert isinstance(verdict(index(), Traits(unique_reason="upserts")), Task)


def test_brin_invalid_and_small_unmeasured_indexes_are_no_matter() -> None:
    assert verdict(index(bloat_ratio=None, access_method="brin")) is None
    assert verdict(index(is_valid=False, bloat_ratio=None)) is None
    assert verdict(index(bloat_ratio=None, size_bytes=2 * MB, reason="too small")) is None


def task(name: str, gain: int, seconds: float) -> Task:
    return Task(index(name, size_bytes=2 * gain), 0.5, gain, seconds)


def test_most_bytes_a_second_come_first_and_what_does_not_fit_the_window_is_skipped_with_that_reason() -> None:
    tasks = in_order([task("slow", 40 * MB, 40), task("fast", 30 * MB, 10), task("tiny", 10 * MB, 5)])
    assert [each.target.name for each in tasks] == ["fast", "tiny", "slow"]
    fitting, late = within(tasks, 20)
    assert [each.target.name for each in fitting] == ["fast", "tiny"]
    assert [each.target.name for each in late] == ["slow"]
    assert late[0].reason == "it would take about 40.0 s, and 5.0 s of the window will be left"
    assert late[0].wanted
    assert within(tasks, float("inf"))[1] == []


def test_the_speed_of_rebuilds_is_learned_and_kept(tmp_path: Path) -> None:
    memory = Memory.load(str(tmp_path), "7")
    stated = memory.predicted_seconds("btree", 200 * MB, 50 * MB)
    assert stated == pytest.approx(0.1 + cost(200 * MB, 50 * MB) / DEFAULT_SPEED)
    memory.learn_speed("btree", 200 * MB, 50 * MB, 2.0)
    assert memory.predicted_seconds("btree", 200 * MB, 50 * MB) == pytest.approx(2.0)
    assert memory.predicted_seconds("gin", 200 * MB, 50 * MB) == stated
    memory.save()
    again = Memory.load(str(tmp_path), "7")
    assert again.predicted_seconds("btree", 400 * MB, 100 * MB) == pytest.approx(3.9)
    again.learn_speed("btree", 1000, 1000, 5.0)
    assert again.predicted_seconds("btree", 200 * MB, 50 * MB) == pytest.approx(2.0), "a tiny one teaches nothing"


def test_an_index_that_did_not_get_smaller_counts_as_free_of_bloat_until_it_grows(tmp_path: Path) -> None:
    memory = Memory.load(str(tmp_path), "7")
    assert memory.settle(index(bloat_ratio=0.4))
    memory.save()
    memory = Memory.load(str(tmp_path), "7")
    assert judge(index(bloat_ratio=0.4), Traits(), Settings(), memory) is None
    assert judge(index(bloat_ratio=0.5), Traits(), Settings(), memory) is None
    grown = judge(index(bloat_ratio=0.7), Traits(), Settings(), memory)
    assert isinstance(grown, Task)
    assert grown.bloat_ratio == pytest.approx(0.5)
    assert grown.predicted_bytes == 50 * MB
    other = index(bloat_ratio=0.4, definition="CREATE INDEX student_name ON public.student USING btree (email)")
    assert isinstance(judge(other, Traits(), Settings(), memory), Task), "another index of the same name"
    assert isinstance(judge(index(bloat_ratio=0.4, method="sampled"), Traits(), Settings(), memory), Task)
    assert not memory.settle(index(bloat_ratio=0.02))
    assert isinstance(judge(index(bloat_ratio=0.4), Traits(), Settings(), memory), Task)


def test_an_index_that_won_little_is_foreseen_by_what_a_row_took(tmp_path: Path) -> None:
    memory = Memory.load(str(tmp_path), "7")
    assert memory.settle(index(size_bytes=95 * MB, bloat_ratio=0.0), disappointing=True)
    memory.save()
    memory = Memory.load(str(tmp_path), "7")
    assert judge(index(bloat_ratio=0.5), Traits(), Settings(), memory) is None, "95 bytes a row: nothing to win"
    emptied = judge(index(bloat_ratio=0.9, tuples=200_000, table_tuples=200_000), Traits(), Settings(), memory)
    assert isinstance(emptied, Task)
    assert emptied.predicted_bytes == 19 * MB


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"format": 1}', '{"format": 1, "speed": {"btree": "x"}, "settled": {}}',
                '{"format": 1, "speed": {}, "settled": {"a": {"ratio": 7}}}',
                '{"format": 1, "speed": [], "settled": 1}']
)  # fmt: skip
def test_a_damaged_memory_is_no_memory(tmp_path: Path, content: str) -> None:
    (tmp_path / "reindex").mkdir()
    (tmp_path / "reindex/7.json").write_text(content)
    memory = Memory.load(str(tmp_path), "7")
    assert memory.corrected(index(bloat_ratio=0.4)) == (0.4, 60 * MB)


LONG = "a" * 63
WIDE = "é" * 31 + "x"  # 63 bytes


@pytest.mark.parametrize(
    ("name", "original", "expected"),
    [
        ("student_name_ccnew", "student_name", True),
        ("student_name_ccold", "student_name", True),
        ("student_name_ccnew12", "student_name", True),
        ("student_name_ccnewer", "student_name", False),
        ("student_ccnew", "student_name", False),
        ("student_name_ccnew", "student_nam", False),
        ("student_name_new", "student_name", False),
        ("_ccnew", "student_name", False),
        (LONG[:57] + "_ccnew", LONG, True),
        (LONG[:56] + "_ccnew1", LONG, True),
        (LONG[:50] + "_ccnew", LONG, False),
        (LONG[:57] + "_ccnew", "b" * 63, False),
        ("é" * 28 + "_ccnew", WIDE, True),  # 62 bytes: the next character would take two
        ("é" * 28 + "_ccold1", WIDE, True),
        ("é" * 20 + "_ccnew", WIDE, False),
        ("a\nb_ccnew", "a\nb", True),
    ],
)
def test_a_leftover_is_told_by_the_name_that_a_rebuild_gives_also_where_it_was_cut(
    name: str, original: str, expected: bool
) -> None:
    assert is_named_after(name, len(name.encode()), original) is expected


def invalid(name: str, busy: int | None = None, siblings: tuple[str, ...] = ("student_name",)) -> Invalid:
    return Invalid(
        "shop", "public", name, 1, len(name.encode()), "public", "student", 2, "student", "public", 8192, busy, siblings
    )


def test_nothing_is_a_leftover_without_a_valid_sibling_or_while_somebody_works_on_it() -> None:
    assert is_leftover(invalid("student_name_ccnew"))
    assert not is_leftover(invalid("student_name_ccnew", siblings=()))
    assert not is_leftover(invalid("student_name_ccnew", siblings=("student_email",)))
    assert not is_leftover(invalid("student_name_ccnew", busy=4711))
    assert not is_leftover(invalid("student_name"))


@pytest.mark.parametrize(
    ("statement", "targets"),
    [
        ("INSERT INTO student (id) VALUES ($1) ON CONFLICT (id) DO NOTHING", {"student"}),
        ("insert into Shop.Student as s values ($1)\n  on   conflict do nothing", {"student"}),
        ('INSERT INTO "Shop"."Stu""dent" VALUES ($1) ON CONFLICT DO NOTHING', {'Stu"dent'}),
        ("WITH x AS (INSERT INTO a VALUES (1) ON CONFLICT DO NOTHING) INSERT INTO b(id) SELECT 1", {"a", "b"}),
        ("INSERT /* why */ INTO -- hm\n student VALUES ($1) ON CONFLICT DO NOTHING", {"student"}),
        ("INSERT INTO student VALUES ($1)", set()),
        ("SELECT 'on conflict'", set()),
        ("INSERT INTO öffnung VALUES ($1) ON CONFLICT DO NOTHING", {"öffnung"}),
    ],
)  # fmt: skip
def test_upserts_are_read_from_statements(statement: str, targets: set[str]) -> None:
    assert upsert_targets(statement) == targets


def test_a_unique_index_is_rebuilt_only_where_no_upsert_can_fail_by_it() -> None:
    none, seen, unknown = Upserts(frozenset()), Upserts(frozenset({"student"})), Upserts(frozenset(), "no statistics")
    assert why_not_unique("auto", 180000, ["student"], none) == ""
    assert "upserts" in why_not_unique("auto", 180000, ["student_2026", "student"], seen)
    assert "no statistics" in why_not_unique("auto", 180000, ["student"], unknown)
    assert why_not_unique("auto", 190000, ["student"], seen) == ""
    assert why_not_unique("auto", 150000, ["course"], seen) == ""
    assert why_not_unique("always", 150000, ["student"], seen) == ""
    assert "never" in why_not_unique("never", 190000, ["student"], none)


def test_room_is_asked_for_three_times_where_one_file_system_takes_it_all() -> None:
    devices = {"/a": 1, "/b": 1, "/wal": 2}
    room = {"/a": 7, "/b": 7, "/wal": 9}
    needed, free = sum_by_device(["/a", "/b", "/wal"], 100, devices.__getitem__, room.__getitem__)
    assert needed == {1: 200, 2: 100}
    assert free == {1: ("/a", 7), 2: ("/wal", 9)}


def other(seconds: float, backend: str = "client backend", pid: int = 11) -> Other:
    return Other(pid, "shop", "app", backend, seconds)


def test_a_rebuild_makes_way_after_the_longest_bearable_wait_and_for_autovacuum_at_once() -> None:
    assert why_stop(Look((other(0.9),), (), 10.0), "", 10.1, 1.0) == ("", "")
    kind, words = why_stop(Look((other(0.2), other(1.1, pid=12)), (), 10.0), "", 10.1, 1.0)
    assert kind == "blocking"
    assert words == "process 12 (shop, role app) had waited 1.1 s on it"
    assert why_stop(Look((other(0.0, "autovacuum worker"),), (), 10.0), "", 10.1, 1.0)[0] == "autovacuum"
    assert why_stop(Look((), (other(0.0, "autovacuum worker"),), 10.0), "", 10.1, 1.0)[0] == "autovacuum"
    assert why_stop(Look((), (other(99.0),), 10.0), "", 10.1, 1.0) == ("", ""), "it may wait for others itself"


def test_a_rebuild_waits_for_others_no_longer_than_it_has_worked_and_some_seconds_in_any_case() -> None:
    waits = Look((), (other(99.0),), 10.0)
    assert why_wait_no_longer(waits, 9.0, 9.5, 10.0) == ("", "")
    assert why_wait_no_longer(waits, 10.5, 11.0, 10.0) == (
        "waiting",
        "it had waited 10.5 s for process 11 (shop, role app)",
    )
    assert why_wait_no_longer(waits, 60.0, 180.0, 10.0) == ("", ""), "two minutes of work would be lost"
    assert why_wait_no_longer(waits, 121.0, 240.0, 10.0)[0] == "waiting"
    assert why_wait_no_longer(Look((), (), 10.0), 121.0, 240.0, 10.0) == ("", ""), "it goes on"


def test_a_rebuild_never_runs_unwatched() -> None:
    assert why_stop(Look((), (), 10.0), "", 10.9, 1.0)[0] == ""
    assert why_stop(Look((), (), 10.0), "", 11.1, 1.0)[0] == "unwatched"
    assert why_stop(Look((), (), 10.0), "", 11.1, 5.0)[0] == ""
    assert why_stop(Look((), (), 10.0), "terminated", 10.0, 5.0) == (
        "unwatched",
        "the connection that watched it was lost: terminated",
    )


def test_what_was_put_off_is_tried_again_after_growing_pauses_for_as_long_as_allowed() -> None:
    turn = Turn(task("x", MB, 1))
    assert turn.put_off("why", 100.0, 6.0)
    assert turn.not_before == 101.0
    assert turn.put_off("why", 101.0, 6.0)
    assert turn.not_before == 103.0
    assert not turn.put_off("why", 103.0, 6.0), "107 would be more than 6 s after the first try"
    assert not Turn(task("x", MB, 1)).put_off("why", 100.0, 0.0)


def test_what_a_rebuild_must_keep_is_told_by_name_when_it_is_lost() -> None:
    before = {"definition": "d", "owner": "app", "tablespace": "", "options": None, "is_unique": True,
              "is_primary": True, "is_immediate": True, "is_clustered": False, "is_replica_identity": True,
              "constraints": "pk p", "columns": "id", "partition_of": None, "comment": None}  # fmt: skip
    assert lost(before, dict(before)) == []
    after = {**before, "owner": "postgres", "is_replica_identity": False}
    assert lost(before, after) == ["owner: app before, postgres after", "replica identity: True before, False after"]


@pytest.mark.parametrize("version", [140000, 140003])
def test_servers_whose_concurrent_rebuilds_damage_indexes_are_refused(version: int) -> None:
    class Connection:
        info = SimpleNamespace(server_version=version)

    assert "update it" in refuse_server(Connection())
    assert 140004 not in UNSAFE


def options(**changes: Any) -> dict[str, Any]:
    return {**{name: option.get("default") for name, option in REINDEX_OPTIONS.items()}, **changes}


def test_options_are_read_and_those_that_make_no_sense_are_named() -> None:
    settings = read_settings(options(min_gain="20MiB", time_budget="30m"))
    assert (settings.min_gain, settings.time_budget, settings.max_block) == (20 * 1024**2, 1800, 1)
    for name, wrong in (("min_gain", "much"), ("max_block", "soon"), ("min_bloat_ratio", 30)):
        with pytest.raises(MaintenanceError) as caught:
            read_settings(options(**{name: wrong}))
        assert name in caught.value.what
