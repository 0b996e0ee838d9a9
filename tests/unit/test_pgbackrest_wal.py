"""Segments in pgBackRest's archive: each must be what its name says, be there once, and hold something."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import BinaryIO

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.pgbackrest.tool import Access, Listed, Tool
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.pgbackrest.wal import PgbackrestWal
from support.wal import CLUSTER, segment_content

NAME = "000000010000000000000003"


class Directory(Tool):
    """A repository that is read from a directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.access = Access("/etc/pgbackrest.conf", "main", "postgres")

    def files(self, path: str) -> dict[str, Listed]:
        below = self.root / path
        found = (one for one in below.rglob("*") if one.is_file())
        return {str(one.relative_to(below)): Listed(one.stat().st_size, 0) for one in found}

    def read(self, path: str, target: BinaryIO) -> None:
        target.write((self.root / path).read_bytes())


@pytest.fixture
def wal(tmp_path: Path) -> PgbackrestWal:
    return PgbackrestWal(Directory(tmp_path), "15-1", CLUSTER, encrypted=True)


def put(tmp_path: Path, content: bytes, sha1: str = "") -> None:
    directory = tmp_path / "archive" / "main" / "15-1" / NAME[:16]
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{NAME}-{sha1 or hashlib.sha1(content).hexdigest()}").write_bytes(content)


def test_a_segment_as_it_was_archived_is_sound(wal: PgbackrestWal, tmp_path: Path) -> None:
    put(tmp_path, segment_content(NAME))
    assert [wal.problem_of(one) for one in wal.archived()] == [""]
    assert wal.oddities() == []


def test_a_segment_of_another_content_than_its_name_says_is_refused(wal: PgbackrestWal, tmp_path: Path) -> None:
    content = segment_content(NAME)
    changed = content[:-1] + bytes([content[-1] ^ 1])
    put(tmp_path, changed, hashlib.sha1(content).hexdigest())
    (problem,) = [wal.problem_of(one) for one in wal.archived()]
    assert "SHA-1 differs" in problem


def test_a_segment_that_is_there_twice_is_told(wal: PgbackrestWal, tmp_path: Path) -> None:
    content = segment_content(NAME)
    put(tmp_path, content)
    put(tmp_path, content[:-1] + b"x")
    assert wal.oddities() == [f"{NAME} was archived twice, with different content"]


def test_an_empty_segment_is_told(wal: PgbackrestWal, tmp_path: Path) -> None:
    put(tmp_path, b"")
    assert [words for words in wal.oddities() if words.endswith(" is empty")]
