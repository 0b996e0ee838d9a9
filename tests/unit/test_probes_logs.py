"""Reading what was added to logs: through rotation, copies, compression, truncation and reused inodes."""

from __future__ import annotations

import gzip
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.probes import log_reading
from ansible_collections.wellkept.maintenance.plugins.module_utils.probes.log_reading import (
    Finding,
    Position,
    read_new_lines,
)

ERROR = re.compile(rb"ERROR", re.MULTILINE)


class Reader:
    """Reads one log again and again, as one run after another does."""

    def __init__(self, path: Path | str, pattern: re.Pattern[bytes] = ERROR) -> None:
        self.path = str(path)
        self.pattern = pattern
        self.positions: Sequence[Position] | None = None

    def read(self, first_run_bytes: int = 1 << 20) -> Finding:
        finding = read_new_lines(self.path, self.pattern, self.positions, first_run_bytes, lambda: False)
        self.positions = finding.positions
        return finding


def append(path: Path, *lines: str) -> None:
    with path.open("a") as stream:
        stream.writelines(f"{line}\n" for line in lines)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "app.log"
    append(path, "started at 09:00", "ERROR one", "fine")
    return path


def test_each_line_is_counted_once(log: Path) -> None:
    reader = Reader(log)
    assert reader.read().matching == 1
    assert reader.read().matching == 0
    append(log, "ERROR two", "ERROR three")
    assert reader.read().matching == 2
    assert reader.read().matching == 0


def test_a_line_that_is_still_being_written_waits_for_its_end(log: Path) -> None:
    reader = Reader(log)
    reader.read()
    with log.open("a") as stream:
        stream.write("ERR")
    assert reader.read().matching == 0
    with log.open("a") as stream:
        stream.write("OR complete\n")
    assert reader.read().matching == 1


def test_on_the_first_run_only_the_end_is_read_and_no_half_line(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    append(log, *["ERROR old"] * 1000, "ERROR x", "ERROR y")
    finding = Reader(log).read(first_run_bytes=20)
    assert finding.first_run
    assert finding.samples == [b"ERROR x", b"ERROR y"]


def test_lines_before_a_rotation_by_rename_are_read_in_the_rotated_file(log: Path) -> None:
    reader = Reader(log)
    reader.read()
    append(log, "ERROR before")
    log.rename(f"{log}.1")
    append(log, "started", "ERROR after")
    finding = reader.read()
    assert (finding.matching, finding.gaps) == (2, [])
    assert finding.samples == [b"ERROR before", b"ERROR after"]
    assert reader.read().matching == 0


def test_several_rotations_between_two_runs_lose_nothing(log: Path) -> None:
    reader = Reader(log)
    reader.read()
    append(log, "ERROR a")
    log.rename(f"{log}.1")
    append(log, "ERROR b")
    Path(f"{log}.1").rename(f"{log}.2")
    log.rename(f"{log}.1")
    append(log, "ERROR c")
    finding = reader.read()
    assert (finding.matching, finding.gaps, finding.files) == (3, [], 3)
    assert reader.read().matching == 0


def test_a_rotated_file_that_was_compressed_is_read_on(log: Path) -> None:
    reader = Reader(log)
    reader.read()
    append(log, "ERROR before")
    Path(f"{log}-20261121.gz").write_bytes(gzip.compress(log.read_bytes()))
    log.unlink()
    append(log, "ERROR after")
    finding = reader.read()
    assert (finding.matching, finding.gaps) == (2, [])


def test_copytruncate_is_followed_into_the_copy(log: Path) -> None:
    reader = Reader(log)
    reader.read()
    append(log, "ERROR before")
    Path(f"{log}.1").write_bytes(log.read_bytes())
    os.truncate(log, 0)
    append(log, "ERROR after")
    finding = reader.read()
    assert (finding.matching, finding.gaps) == (2, [])
    assert reader.read().matching == 0


def test_a_log_truncated_without_a_copy_is_read_from_its_start_and_the_gap_is_told(log: Path) -> None:
    reader = Reader(log)
    reader.read()
    os.truncate(log, 0)
    append(log, "ERROR x")
    finding = reader.read()
    assert finding.matching == 1
    assert "app.log before it was replaced" in finding.gaps[0]


def test_a_log_that_grew_beyond_its_old_size_after_truncation_is_not_taken_for_the_old_one(log: Path) -> None:
    reader = Reader(log)
    reader.read()
    os.truncate(log, 0)
    append(log, *["ERROR new"] * 20)
    finding = reader.read()
    assert finding.matching == 20
    assert finding.gaps


def test_a_reused_inode_is_not_taken_for_the_old_file(log: Path) -> None:
    reader = Reader(log)
    reader.read()
    append(log, "ERROR before")
    old = log.read_bytes()
    # As if the rotated file had been compressed and its inode given to the new log.
    Path(f"{log}.1.gz").write_bytes(gzip.compress(old))
    log.write_text("another beginning\nERROR after\n" + "x\n" * 100)
    finding = reader.read()
    assert (finding.matching, finding.gaps) == (2, [])


def test_a_rotated_file_that_cannot_be_found_is_a_gap(log: Path) -> None:
    reader = Reader(log)
    reader.read()
    log.unlink()
    append(log, "entirely new")
    finding = reader.read()
    assert finding.matching == 0
    assert finding.gaps == [f"what was added to {log} before it was replaced (the rotated file is not beside it)"]
    assert reader.read().gaps == [], "told once"


def test_a_pattern_of_paths_that_also_matches_rotated_files_counts_no_line_twice(log: Path) -> None:
    reader = Reader(f"{log}*")
    reader.read()
    append(log, "ERROR before")
    log.rename(f"{log}.1")
    append(log, "ERROR after")
    finding = reader.read()
    assert (finding.matching, finding.gaps) == (2, [])
    append(log, "ERROR more")
    assert reader.read().matching == 1


def test_a_copy_that_the_pattern_of_paths_matches_is_not_counted_again(log: Path) -> None:
    reader = Reader(f"{log}*")
    reader.read()
    Path(f"{log}.1").write_bytes(log.read_bytes())
    os.truncate(log, 0)
    append(log, "ERROR after")
    finding = reader.read()
    assert (finding.matching, finding.gaps) == (1, [])


def rotate(log: Path) -> None:
    """``app.log.1`` → ``app.log.2``, ``app.log`` → ``app.log.1``, and a new, empty ``app.log``."""
    numbers = [int(name.rpartition(".")[2]) for name in os.listdir(log.parent) if name.startswith("app.log.")]
    for number in sorted(numbers, reverse=True):
        log.with_name(f"app.log.{number}").rename(log.with_name(f"app.log.{number + 1}"))
    log.rename(log.with_name("app.log.1"))
    log.touch()


@pytest.mark.parametrize("times", [1, 2])
def test_a_rotation_between_opening_one_file_and_the_next_counts_no_line_twice_and_loses_none(
    log: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    reader = Reader(log)
    assert reader.read().matching == 1
    append(log, "ERROR two")
    rotate(log)
    append(log, "ERROR three")
    scandir, left = os.scandir, [times]

    def scandir_after_a_rotation(path: str) -> Any:
        if left[0]:
            left[0] -= 1
            rotate(log)
            append(log, "ERROR meanwhile")
        return scandir(path)

    monkeypatch.setattr(log_reading.os, "scandir", scandir_after_a_rotation)
    counted = reader.read().matching
    rotate(log)
    counted += reader.read().matching
    assert counted == 2 + times


def test_a_log_that_is_rotated_all_the_time_is_a_gap(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Reader(log)
    reader.read()
    rotate(log)
    scandir = os.scandir

    def scandir_after_a_rotation(path: str) -> Any:
        rotate(log)
        return scandir(path)

    monkeypatch.setattr(log_reading.os, "scandir", scandir_after_a_rotation)
    assert "again and again" in reader.read().gaps[0]


def test_a_log_that_is_new_since_the_last_run_is_read_whole(log: Path) -> None:
    reader = Reader(log.parent / "*.log")
    reader.read(first_run_bytes=10)
    append(log.parent / "other.log", *["ERROR"] * 50)
    assert reader.read(first_run_bytes=10).matching == 50


def test_no_log_at_all_is_a_gap(tmp_path: Path) -> None:
    assert Reader(tmp_path / "none.log").read().gaps == [f"no file matches {tmp_path}/none.log"]


def test_invalid_utf8_and_lines_longer_than_a_block_are_read(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    log.write_bytes(b"\xff\xfe ERROR \xc3\n" + b"\0" * (3 * log_reading.BLOCK) + b"ERROR after a hole\n")
    finding = Reader(log).read(first_run_bytes=1 << 30)
    assert finding.matching == 2
    assert all(len(sample) <= log_reading.SAMPLE_BYTES for sample in finding.samples)


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        (rb"ERROR", 3),
        (rb"^ERROR", 2),
        (rb"ERROR$", 1),
        (rb"ERROR\s+fine", 0),  # never across the end of a line
        (rb"\s+ERROR", 1),
        (rb"(?i)error", 3),
        (rb"^$", 1),
        (rb"", 5),
        (rb"nothing", 0),
    ],
)
def test_patterns_are_searched_in_each_line_alone(tmp_path: Path, pattern: bytes, count: int) -> None:
    log = tmp_path / "app.log"
    log.write_bytes(b"ERROR\nfine\n\nan ERROR here ERROR twice\nERROR here\n")
    assert Reader(log, re.compile(pattern, re.MULTILINE)).read().matching == count


def test_reading_that_ran_out_of_time_goes_on_in_the_next_run(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    line = "ERROR " + "x" * 94
    append(log, *[line] * 50_000)  # about 5 blocks
    blocks = iter([False, False, True])
    first = read_new_lines(str(log), ERROR, [], 0, lambda: next(blocks, True))
    assert 0 < first.matching < 50_000
    assert "no time" in first.gaps[0]
    second = read_new_lines(str(log), ERROR, first.positions, 0, lambda: False)
    assert first.matching + second.matching == 50_000


def test_a_rotated_file_that_was_not_finished_is_finished_later_under_yet_another_name(log: Path) -> None:
    reader = Reader(log)
    reader.read()
    append(log, "ERROR before")
    log.rename(f"{log}.1")
    append(log, "ERROR after")
    unread = read_new_lines(str(log), ERROR, reader.positions, 0, lambda: True)
    assert unread.matching == 0
    reader.positions = unread.positions
    Path(f"{log}.1").rename(f"{log}.2")
    log.rename(f"{log}.1")
    append(log, "ERROR last")
    finding = reader.read()
    assert (finding.matching, finding.gaps) == (3, [])


def test_memory_stays_bounded(tmp_path: Path) -> None:
    import tracemalloc

    log = tmp_path / "app.log"
    append(log, *["fine " + "x" * 200] * 100_000)  # 20 MB
    tracemalloc.start()
    Reader(log).read(first_run_bytes=1 << 30)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * log_reading.BLOCK


def test_a_link_made_by_another_user_is_not_followed(log: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make a link that belongs to somebody else")
    secret = log.parent / "secret"
    secret.write_text("ERROR the secret\n")
    link = log.parent / "evil.log"
    link.symlink_to(secret)
    os.lchown(link, 65534, 65534)
    finding = Reader(link).read()
    assert (finding.matching, finding.samples) == (0, [])
    assert "a link that another user made" in finding.gaps[0]


def test_our_own_link_is_followed_and_a_pipe_is_refused(log: Path) -> None:
    link = log.parent / "current.log"
    link.symlink_to(log)
    assert Reader(link).read().matching == 1
    os.mkfifo(log.parent / "pipe.log")
    assert "no regular file" in Reader(log.parent / "pipe.log").read().gaps[0]
