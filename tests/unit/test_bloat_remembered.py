"""The memory of measurements: what it believes, what it does not, and what its file looks like."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.bloat import remembered as memory
from ansible_collections.wellkept.maintenance.plugins.module_utils.bloat.model import Finding, joined, nothing
from ansible_collections.wellkept.maintenance.plugins.module_utils.bloat.remembered import (
    FIRST_SIGHT,
    MAX_AGE,
    REBUILT,
    Remembered,
)
from support.bloat_facts import facts

FOUND = Finding(0.25, 600_000, 0.68, "pgstatindex", "high", "", 0.0)
INDEX = facts()
GIN = facts(access_method="gin", name="words", definition="CREATE INDEX words …", size_bytes=1000, table_tuples=100.0)


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def stored(path: Path) -> Remembered:
    """A memory in a file, with one measurement in it."""
    known = Remembered(str(path))
    known.keep(INDEX, "btree", FOUND)
    known.save()
    return known


def test_an_unchanged_index_is_remembered_by_the_next_run(tmp_path: Path) -> None:
    stored(tmp_path / "new" / "memory.json")
    assert Remembered(str(tmp_path / "new" / "memory.json")).finding(INDEX, "btree") == FOUND


def test_another_state_another_way_and_another_index_are_not() -> None:
    known = Remembered()
    known.keep(INDEX, "btree", FOUND)
    assert known.finding(INDEX, "btree") == FOUND
    assert known.finding(replace(INDEX, state="17000 1 2 4"), "btree") is None
    assert known.finding(INDEX, "sampled 400") is None
    assert known.finding(replace(INDEX, oid=17001), "btree") is None
    assert known.finding(replace(INDEX, database_oid=5), "btree") is None


def test_an_index_whose_changes_are_not_counted_is_never_remembered() -> None:
    known, uncounted = Remembered(), replace(INDEX, state="")
    known.keep(uncounted, "btree", FOUND)
    assert known.finding(uncounted, "btree") is None
    known.keep(INDEX, "btree", FOUND)
    assert known.finding(uncounted, "btree") is None


def test_what_could_not_be_measured_is_tried_again() -> None:
    known = Remembered()
    known.keep(INDEX, "btree", nothing(INDEX.size_bytes, "locked by process 7"))
    assert known.finding(INDEX, "btree") is None


def test_after_a_month_or_when_the_clock_went_back_it_is_measured_again() -> None:
    clock = Clock()
    known = Remembered(now=clock)
    known.keep(INDEX, "btree", FOUND)
    clock.now += MAX_AGE
    assert known.finding(INDEX, "btree") == FOUND
    clock.now += 1
    assert known.finding(INDEX, "btree") is None
    clock.now -= MAX_AGE + 2
    assert known.finding(INDEX, "btree") is None


def test_what_is_older_than_that_leaves_the_file(tmp_path: Path) -> None:
    clock = Clock()
    known = Remembered(str(tmp_path / "memory.json"), now=clock)
    known.keep(INDEX, "btree", FOUND)
    known.save()
    clock.now += MAX_AGE + 1
    known.keep(replace(INDEX, oid=18000), "btree", FOUND)
    known.save()
    assert list(json.loads((tmp_path / "memory.json").read_text())["measured"]) == ["16384/18000"]


def test_the_file_is_private_and_not_written_without_need(tmp_path: Path) -> None:
    path = tmp_path / "bloat" / "memory.json"
    known = stored(path)
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    before = path.stat()
    known.save()
    Remembered(str(path)).save()
    assert path.stat().st_ino == before.st_ino
    assert os.listdir(path.parent) == ["memory.json"]


def test_without_a_file_it_still_remembers_within_a_run() -> None:
    known = Remembered()
    known.keep(INDEX, "btree", FOUND)
    known.save()
    assert known.finding(INDEX, "btree") == FOUND


def test_what_another_process_wrote_meanwhile_is_kept(tmp_path: Path) -> None:
    path = str(tmp_path / "memory.json")
    ours, theirs = Remembered(path), Remembered(path)
    theirs.keep(replace(INDEX, oid=18000), "btree", FOUND)
    theirs.learn(GIN)
    theirs.save()
    ours.keep(INDEX, "btree", FOUND)
    ours.save()
    known = Remembered(path)
    assert known.finding(INDEX, "btree") == FOUND
    assert known.finding(replace(INDEX, oid=18000), "btree") == FOUND
    assert known.baseline(GIN) is not None


def damaged(**different: Any) -> str:
    entry = {"state": "17000 1 2 3", "way": "btree", "at": 1.0, "finding": list(FOUND)}
    document = {"format": 1, "measured": {"16384/17000": entry}, "baselines": {}}
    return json.dumps({**document, **different})


DAMAGED = {
    "empty": "",
    "cut off": damaged()[:-9],
    "not text": "\udcff\udcfe",
    "a list": "[]",
    "another format": damaged(format=2),
    "no measurements": damaged(measured=None),
    "an entry of another shape": damaged(measured={"16384/17000": []}),
    "an entry without a time": damaged(measured={"16384/17000": {"state": "", "way": "", "finding": list(FOUND)}}),
    "a short finding": damaged(measured={"1/2": {"state": "", "way": "", "at": 1, "finding": [0.5]}}),
    "a finding of words": damaged(measured={"1/2": {"state": "", "way": "", "at": 1, "finding": ["0.5"] * 7}}),
    "a baseline without a name": damaged(
        baselines={"words": {"definition": "", "bytes_per_tuple": 1, "density": None, "source": ""}}
    ),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_file_is_not_believed_and_replaced(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "memory.json"
    path.write_bytes(DAMAGED[kind].encode(errors="surrogateescape"))
    path.chmod(0o600)
    known = Remembered(str(path))
    assert str(path) in known.remark
    assert known.finding(INDEX, "btree") is None
    known.keep(INDEX, "btree", FOUND)
    known.save()
    again = Remembered(str(path))
    assert (again.remark, again.finding(INDEX, "btree")) == ("", FOUND)


def test_the_undamaged_counterpart_is_believed(tmp_path: Path) -> None:
    path = tmp_path / "memory.json"
    path.write_text(damaged())
    path.chmod(0o600)
    assert Remembered(str(path), now=lambda: 2.0).finding(INDEX, "btree") == FOUND


def test_a_file_that_others_may_write_to_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "memory.json"
    stored(path)
    path.chmod(0o666)
    known = Remembered(str(path))
    assert "only its owner" in known.remark
    assert known.finding(INDEX, "btree") is None


def test_a_link_or_a_directory_in_its_place_is_not_followed(tmp_path: Path) -> None:
    stored(tmp_path / "elsewhere.json")
    (tmp_path / "memory.json").symlink_to(tmp_path / "elsewhere.json")
    before = (tmp_path / "elsewhere.json").read_bytes()
    known = Remembered(str(tmp_path / "memory.json"))
    assert known.remark
    known.keep(replace(INDEX, oid=18000), "btree", FOUND)
    known.save()
    assert (tmp_path / "elsewhere.json").read_bytes() == before
    assert not (tmp_path / "memory.json").is_symlink()
    (tmp_path / "directory.json").mkdir()
    assert Remembered(str(tmp_path / "directory.json")).remark
    os.mkfifo(tmp_path / "pipe.json")
    assert Remembered(str(tmp_path / "pipe.json")).remark


def test_each_cluster_has_a_file_of_its_own(tmp_path: Path) -> None:
    assert Remembered.load(str(tmp_path), "7431").path == f"{tmp_path}/bloat/7431.json"
    assert Remembered.load(str(tmp_path), "../../etc/passwd").path == f"{tmp_path}/bloat/etcpasswd.json"


def test_a_rebuild_sets_the_baseline_whatever_it_was() -> None:
    known = Remembered()
    known.learn(GIN, source=FIRST_SIGHT)
    known.learn(replace(GIN, size_bytes=2000))
    assert known.baseline(GIN) == (20.0, None, REBUILT)
    rebuilt = joined(replace(GIN, size_bytes=3000), Finding(0.0, 3000, 0.62, "pgstattuple", "medium"))
    known.learn(rebuilt)
    assert known.baseline(GIN) == (30.0, 0.62, REBUILT)


def test_at_first_sight_only_what_is_more_compact_takes_its_place() -> None:
    known = Remembered()
    for size, ratio in ((1000, 10.0), (2000, 10.0), (500, 5.0)):
        known.learn(replace(GIN, size_bytes=size), source=FIRST_SIGHT)
        assert known.baseline(GIN) == (ratio, None, FIRST_SIGHT)


def test_a_baseline_outlives_the_oid_but_not_the_definition() -> None:
    known = Remembered()
    known.learn(GIN)
    assert known.baseline(replace(GIN, oid=99999)) is not None
    assert known.baseline(replace(GIN, definition="CREATE INDEX words … WHERE …")) is None
    assert known.baseline(replace(GIN, schema="other")) is None


def test_an_index_without_counted_rows_gets_no_ratio() -> None:
    known = Remembered()
    known.learn(replace(GIN, table_tuples=-1.0))
    baseline = known.baseline(GIN)
    assert baseline is not None
    assert baseline.bytes_per_tuple is None


def test_what_is_gone_is_forgotten_in_its_own_database_alone() -> None:
    known = Remembered()
    other = replace(INDEX, database="other", database_oid=5)
    for index in (INDEX, replace(INDEX, oid=18000, name="gone"), other):
        known.keep(index, "btree", FOUND)
        known.learn(index)
    known.forget_others("shop", 16384, [INDEX])
    assert known.finding(INDEX, "btree") == known.finding(other, "btree") == FOUND
    assert known.finding(replace(INDEX, oid=18000), "btree") is None
    assert known.baseline(replace(INDEX, name="gone")) is None
    assert known.baseline(other) is not None


def test_a_file_too_large_to_be_ours_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored(tmp_path / "memory.json")
    monkeypatch.setattr(memory, "_MAX_BYTES", 10)
    assert "larger than 10 bytes" in Remembered(str(tmp_path / "memory.json")).remark
