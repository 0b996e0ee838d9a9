"""What a row says of a file is held against the restored file: each difference alone is enough."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore.file_rows import _compare, _Found

ROOT = "/srv/uploads"
CONTENT = b"submission"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    place = tmp_path / "restored"
    (place / "5").mkdir(parents=True)
    (place / "5" / "5.txt").write_bytes(CONTENT)
    (place / "link").symlink_to("5/5.txt")
    (place / "elsewhere").symlink_to("5")
    (tmp_path / "out.txt").write_bytes(CONTENT)
    return place


@pytest.mark.parametrize("row", [["5/5.txt"], ["5/5.txt", DIGEST, len(CONTENT)], [f"{ROOT}/5/5.txt", None, None]])
def test_a_file_as_its_row_says_is_no_problem(place: Path, row: list[Any]) -> None:
    found = _Found()
    _compare(row, str(place), ROOT, found)
    assert (found.rows, found.examples) == (1, [])


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (["5/6.txt", DIGEST], "is missing"),
        (["5/5.txt/6.txt", DIGEST], "is missing"),
        (["5/5.txt", DIGEST.replace(DIGEST[0], "_")], "has another content"),
        (["5/5.txt", DIGEST, len(CONTENT) + 1], f"has {len(CONTENT)} bytes instead of"),
        (["../out.txt", DIGEST], "leads out of"),
        (["/srv/out.txt", DIGEST], "leads out of"),
        (["elsewhere/5.txt", DIGEST], "lies behind a link"),
        (["link", DIGEST], "is no plain file"),
        (["5", ""], "is no plain file"),
    ],
)
def test_each_difference_from_its_row_is_named(place: Path, row: list[Any], words: str) -> None:
    found = _Found()
    _compare(row, str(place), ROOT, found)
    assert found.problems == 1
    assert words in found.examples[0]
