"""Whether an archive has all from each backup on, and what ``newest`` may mean when it has not."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.repository import Backup
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.wal.archive import Lineage, Reach, Segment
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.wal.markers import Marker
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.wal.source import WalSource
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.wal.verification import continuity
from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore.aim import _refuse_lost

SIZE = 1 << 24
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def name_of(number: int) -> str:
    return f"0000000100000000{number:08X}"


class Numbers(WalSource):
    """An archive of which nothing but the numbers of its segments is asked."""

    directory = where = "an archive"

    def __init__(self, *numbers: int) -> None:
        self._names = [name_of(number) for number in numbers]

    def archived(self) -> list[Segment]:
        return [Segment(name, SIZE, name, "none") for name in self._names]

    def names(self) -> set[str]:
        return set(self._names)

    def timelines(self) -> list[int]:
        return [1]

    def lineage(self, timeline: int) -> Lineage:
        return [(timeline, None)]

    def has_label(self, prefix: str) -> bool:
        return True

    def fetch(self, name: str, path: str) -> None:
        raise AssertionError(name)

    def look(self, segment: Segment) -> Any:
        raise AssertionError(segment)

    def problem_of(self, segment: Segment) -> str:
        raise AssertionError(segment)

    def oddities(self) -> list[str]:
        return []

    def provide(self, cluster: Any) -> None:
        raise AssertionError(cluster)


def backup(start: int, stop: int) -> Backup:
    """A backup from the middle of the segment *start* to the middle of *stop*."""
    lsns = {"start_lsn": f"0/{start:X}000028", "stop_lsn": f"0/{stop:X}000100"}
    return Backup("b", "/nowhere", {**lsns, "timeline": 1, "settings": {"wal_segment_size": SIZE}})


def test_all_from_the_start_to_the_newest_segment_must_be_there() -> None:
    assert continuity(Numbers(3, 4, 5, 6), [backup(3, 4)]).covered == ["b"]
    assert continuity(Numbers(3, 4, 6), [backup(3, 4)]).gaps == {"b": [f"WAL segment {name_of(5)} is missing"]}


def test_an_archive_that_ends_within_a_backup_has_a_gap() -> None:
    """The server ends no backup before its last segment is archived."""
    assert continuity(Numbers(3, 4), [backup(3, 5)]).gaps == {"b": [f"WAL segment {name_of(5)} is missing"]}


class Range:
    """What an archive offers from a backup on: without a gap up to a position, and what lies behind one."""

    def __init__(self, end: int, behind_gap: list[str]) -> None:
        self.reach = Reach(end, [], name_of(5))
        self.behind_gap = behind_gap
        self.line = [(1, None)]
        self.source = Numbers()


@pytest.mark.parametrize(
    ("behind", "written_at", "words"),
    [
        ([], 4, ""),
        ([name_of(6)], 4, f"1 segments lie behind it, up to {name_of(6)}"),
        ([], 6, "was written at 0/6000000"),
    ],
    ids=["nothing is lost", "a gap", "a marker that no WAL leads to"],
)
def test_newest_does_not_mean_less_than_is_known_to_have_been_written(
    behind: list[str], written_at: int, words: str
) -> None:
    wal: Any = Range(5 * SIZE, behind)
    marker = Marker("postgres", "m", NOON, NOON, 1, written_at * SIZE, "p")
    if not words:
        _refuse_lost(wal, [marker])
        return
    with pytest.raises(MaintenanceError) as refused:
        _refuse_lost(wal, [marker])
    assert words in str(refused.value)
