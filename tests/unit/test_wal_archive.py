"""What is in a WAL archive, and what is missing in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.wal import archive as wal_archive
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.wal import wal_helper
from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MaintenanceError
from support.wal import CLUSTER, SEGMENT_BYTES, segment_content

MB = SEGMENT_BYTES


def fill(directory: Path, *names: str) -> Path:
    for name in names:
        (directory / name[:8]).mkdir(parents=True, exist_ok=True)
        (directory / name[:8] / name).write_bytes(segment_content(name[:24]) if len(name) > 23 else b"")
    return directory


def name_of(number: int, timeline: int = 1) -> str:
    return f"{timeline:08X}{number // 4096:08X}{number % 4096:08X}"


def test_segments_are_found_under_every_compression_and_nothing_else_is(tmp_path: Path) -> None:
    fill(tmp_path, name_of(1), name_of(2) + ".gz", name_of(3) + ".zst", name_of(5, 2) + ".lz4")
    fill(tmp_path, "00000002.history", name_of(9) + ".partial", name_of(2) + ".00000028.backup", name_of(7) + ".tmp")
    (tmp_path / "incoming").mkdir()
    (tmp_path / "incoming" / name_of(8)).write_bytes(b"")
    (tmp_path / "00000003").symlink_to(tmp_path / "00000001")
    found = wal_archive.segments(str(tmp_path))
    assert [(s.name, s.compression) for s in found] == [
        (name_of(1), "none"), (name_of(2), "gzip"), (name_of(3), "zstd"), (name_of(5, 2), "lz4")
    ]  # fmt: skip
    assert wal_archive.timelines(str(tmp_path)) == [1, 2]
    assert wal_archive.segments(str(tmp_path / "nowhere")) == []


def test_the_history_of_a_timeline_is_read_from_wherever_it_is(tmp_path: Path) -> None:
    archive = fill(tmp_path / "archive", name_of(1, 3))
    (archive / "00000003" / "00000003.history").write_text("1\t0/300028\tno target\n\n2\t0/5A0000\tbefore x\n")
    assert wal_archive.lineage([str(tmp_path / "wal"), str(archive)], 3) == [(1, 0x300028), (2, 0x5A0000), (3, None)]
    assert wal_archive.lineage([str(archive)], 1) == [(1, None)]
    with pytest.raises(MaintenanceError, match=r"00000002\.history"):
        wal_archive.lineage([str(archive)], 2)


def test_where_a_timeline_was_left_the_segment_of_the_next_one_is_needed() -> None:
    line: wal_archive.Lineage = [(1, 3 * MB + 5), (2, 5 * MB), (3, None)]
    names = wal_archive.needed(line, 1 * MB + 7, 7 * MB, MB)
    assert names == [name_of(1, 1), name_of(2, 1), name_of(3, 2), name_of(4, 2), name_of(5, 3), name_of(6, 3)]
    assert wal_archive.needed([(1, None)], 2 * MB, 2 * MB, MB) == [name_of(2)]


def test_where_the_segment_of_the_next_timeline_is_not_there_yet_the_old_one_leads_to_where_it_was_left() -> None:
    line: wal_archive.Lineage = [(1, 3 * MB + 5), (2, None)]
    names = [name_of(1), name_of(2), name_of(3)]
    assert wal_archive.reach(names, MB, line, MB) == (3 * MB + 5, names, name_of(3, 2))
    assert wal_archive.reach(names[:2], MB, line, MB) == (3 * MB, names[:2], name_of(3, 2))
    gap = wal_archive.reach([*names, name_of(4, 2)], MB, line, MB)
    assert wal_archive.later_than_gap([*names, name_of(4, 2)], gap, line, MB) == [name_of(4, 2)]
    # Restored to a point before the one that the second timeline began at.
    back: wal_archive.Lineage = [(1, 5 * MB + 5), (2, 3 * MB + 5), (3, None)]
    assert wal_archive.reach(names, MB, back, MB) == (3 * MB + 5, names, name_of(3, 3))
    at_its_beginning: wal_archive.Lineage = [(1, 3 * MB), (2, None)]
    assert wal_archive.reach(names, MB, at_its_beginning, MB) == (3 * MB, names[:2], name_of(3, 2))


@pytest.mark.parametrize(
    ("missing", "words"),
    [(1, f"WAL segment {name_of(1)} is missing"), (2, f"{name_of(2)} is missing"), (3, f"{name_of(3)} is missing")],
)
def test_a_gap_is_found_at_the_start_in_the_middle_and_at_the_end(tmp_path: Path, missing: int, words: str) -> None:
    fill(tmp_path, *(name_of(number) for number in (1, 2, 3) if number != missing))
    present = wal_archive.segments(str(tmp_path))
    (problem,) = wal_archive.continuity(present, MB, 4 * MB, [(1, None)], MB)
    assert words in problem


def test_without_an_end_all_up_to_the_newest_segment_must_be_there(tmp_path: Path) -> None:
    fill(tmp_path, name_of(1), name_of(2), name_of(5), name_of(9, 7))
    present = wal_archive.segments(str(tmp_path))
    problems = wal_archive.continuity(present, MB, None, [(1, None)], MB)
    assert [problem.split()[2] for problem in problems] == [name_of(3), name_of(4)]
    gap = wal_archive.reach([s.name for s in present], MB, [(1, None)], MB)
    assert gap == (3 * MB, [name_of(1), name_of(2)], name_of(3))
    assert wal_archive.later_than_gap([s.name for s in present], gap, [(1, None)], MB) == [name_of(5)]


def test_a_wrong_size_and_an_empty_file_are_found(tmp_path: Path) -> None:
    fill(tmp_path, name_of(1), name_of(2), name_of(3) + ".gz")
    (tmp_path / "00000001" / name_of(2)).write_bytes(segment_content(name_of(2))[:-1])
    (tmp_path / "00000001" / (name_of(3) + ".gz")).write_bytes(b"")
    problems = wal_archive.continuity(wal_archive.segments(str(tmp_path)), MB, 4 * MB, [(1, None)], MB)
    assert problems == [
        f"WAL segment {name_of(2)} has {MB - 1} bytes instead of {MB}",
        f"WAL segment {name_of(3)} is empty",
    ]


def test_reading_a_segment_in_full_finds_what_is_another_than_its_name_says(tmp_path: Path) -> None:
    good, other, cut, foreign = (name_of(number) for number in (1, 2, 3, 4))
    fill(tmp_path, good)
    (tmp_path / "00000001" / other).write_bytes(segment_content(good))
    (tmp_path / "00000001" / cut).write_bytes(segment_content(cut)[:5000])
    (tmp_path / "00000001" / foreign).write_bytes(segment_content(foreign, cluster="999"))
    problems = [wal_archive.problem_of(segment, CLUSTER) for segment in wal_archive.segments(str(tmp_path))]
    assert problems[0] == ""
    assert "content of another segment" in problems[1]
    assert "5000 bytes instead of" in problems[2]
    assert "of the cluster 999" in problems[3]


def test_only_what_is_older_than_the_oldest_needed_segment_is_dispensable_and_removed(tmp_path: Path) -> None:
    old = [name_of(1), name_of(2) + ".gz", name_of(2) + ".00000028.backup", name_of(2, 2) + ".partial"]
    kept = [name_of(3) + ".zst", name_of(4, 2), "00000002.history", "notes", name_of(1) + ".gz.old"]
    fill(tmp_path, *old)
    for name in kept:
        (tmp_path / "00000001" / name).write_bytes(b"x")
    (tmp_path / "00000003").symlink_to(tmp_path / "00000001")
    found = wal_archive.dispensable(str(tmp_path), name_of(3))
    assert sorted(path.split("/")[1] for path in found) == sorted(old)
    count, size = wal_archive.remove(str(tmp_path), found)
    assert (count, size) == (4, 4 * MB)
    assert {path.name for path in (tmp_path / "00000001").iterdir()} == set(kept)


def test_removing_follows_no_link(tmp_path: Path) -> None:
    elsewhere = fill(tmp_path / "elsewhere", name_of(1))
    archive = tmp_path / "archive"
    archive.mkdir()
    (archive / "00000001").symlink_to(elsewhere / "00000001")
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        wal_archive.remove(str(archive), [f"00000001/{name_of(1)}"])
    assert (elsewhere / "00000001" / name_of(1)).exists()


@pytest.mark.parametrize(
    ("name", "known"),
    [
        (name_of(1), True), (name_of(1) + ".partial", True), (name_of(1) + ".00000028.backup", True),
        ("00000002.history", True), ("0000000g.history", False), (name_of(1)[:-1], False), (name_of(1).lower(), True),
        ("00000001000000000000000a", False), ("../" + name_of(1), False), (name_of(1) + ".gz", False), ("", False),
        (name_of(1) + ".0000002.backup", False), (name_of(1) + ".x.backup", False),
    ],
)  # fmt: skip
def test_only_names_that_the_server_gives_are_archived(name: str, known: bool) -> None:
    assert wal_helper.is_archived_name(name) is known
