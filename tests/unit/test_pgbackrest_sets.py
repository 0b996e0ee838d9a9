"""A set of pgBackRest is held against what our own catalogue remembers of it, without reading it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.pgbackrest.sets import (
    LISTING,
    Sets,
    set_problems,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.pgbackrest.tool import Access, Listed, Tool
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.repository import Backup

FULL, NAME = "20261121-162337F", "20261121T162337Z-full"
SHA1 = "da39a3ee5e6b4b0d3255bfef95601890afd80709"
SEGMENTS = [f"00000001000000000000000{number}" for number in (3, 4)]


@pytest.fixture
def found(tmp_path: Path) -> tuple[Sets, Backup]:
    """What pgBackRest lists of one set, with its WAL, and our description of it."""
    tool = object.__new__(Tool)  # it is asked nothing: what it would list is given
    tool.access = Access("/etc/pgbackrest.conf", "main", "postgres")
    sets = Sets(tool)
    listing = json.dumps({"files": {"backup.manifest": 10, "pg_data/PG_VERSION.zst": 15}, "manifests": {}})
    (tmp_path / LISTING).write_text(listing)
    metadata = {
        "pgbackrest": {"label": FULL, "prior": None, "archive_id": "15-1", "encrypted": True},
        "files": [{"path": LISTING, "sha256": hashlib.sha256(listing.encode()).hexdigest()}],
        "system_identifier": "7", "settings": {"wal_segment_size": 1 << 24}, "timeline": 1,
        "start_lsn": "0/3000028", "restore_point": {"lsn": "0/4000100"},
    }  # fmt: skip
    backup = Backup(NAME, str(tmp_path), metadata)
    sets.info = {"backup": [{"label": FULL, "prior": None, "annotation": {"wellkept": NAME}, "error": False}]}
    sets.files = {f"{FULL}/backup.manifest": Listed(10, 0), f"{FULL}/pg_data/PG_VERSION.zst": Listed(15, 0)}
    sets.wal(metadata).files = {f"{name[:16]}/{name}-{SHA1}.zst": Listed(100, 0) for name in SEGMENTS}
    return sets, backup


def entry_of(sets: Sets) -> dict[str, Any]:
    return dict(sets.info["backup"][0])


def test_a_set_as_it_was_made_is_sound(found: tuple[Sets, Backup]) -> None:
    assert set_problems(*found) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"label": "another"}, "does not list its set"),
        ({"error": True}, "found errors in pages"),
        ({"prior": "20261120-162337F"}, "builds on 20261120-162337F instead of None"),
        ({"annotation": {"wellkept": "of another backup"}}, "is another one"),
        ({"annotation": None}, "is another one"),
    ],
)
def test_what_pgbackrest_says_of_a_set_is_held_against_what_we_remember(
    found: tuple[Sets, Backup], change: dict[str, Any], words: str
) -> None:
    sets, backup = found
    sets.info = {"backup": [{**entry_of(sets), **change}]}
    problems = set_problems(sets, backup)
    assert len(problems) == 1
    assert words in problems[0]


def test_files_that_are_missing_cut_or_foreign_are_named(found: tuple[Sets, Backup]) -> None:
    sets, backup = found
    sets.files = {f"{FULL}/backup.manifest": Listed(9, 0), f"{FULL}/extra": Listed(1, 0)}
    assert set_problems(sets, backup) == [
        f"{FULL}/pg_data/PG_VERSION.zst is missing",
        f"{FULL}/backup.manifest has 9 bytes instead of 10",
        f"{FULL}/extra does not belong to the set",
    ]


def test_wal_between_the_start_and_the_point_is_missed(found: tuple[Sets, Backup]) -> None:
    sets, backup = found
    wal = sets.wal(backup.metadata)
    wal.files = {path: listed for path, listed in wal.files.items() if SEGMENTS[1] not in path}
    assert set_problems(sets, backup) == [f"WAL segment {SEGMENTS[1]} is missing"]


def test_a_listing_that_was_changed_is_not_believed(found: tuple[Sets, Backup], tmp_path: Path) -> None:
    """Who removes a file could remove it from our listing, too."""
    sets, backup = found
    listing = json.loads((tmp_path / LISTING).read_text())
    del listing["files"]["pg_data/PG_VERSION.zst"]
    (tmp_path / LISTING).write_text(json.dumps(listing))
    sets.files = {f"{FULL}/backup.manifest": Listed(10, 0)}
    assert set_problems(sets, backup) != []
