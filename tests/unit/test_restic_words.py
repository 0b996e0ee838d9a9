"""restic's verdict is believed only where its words and its exit status say the same, and nothing else is said."""

from __future__ import annotations

import subprocess

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.stores.restic import checking

SOUND = """using temporary cache in /tmp/restic-check-cache-2816404239
create exclusive lock for repository
load indexes
check all packs
check snapshots, trees and blobs
[0:00] 100.00%  1 / 1 snapshots
read all data
[0:00] 100.00%  3 / 3 packs
no errors were found
"""
DAMAGED = "pack 4a2d0a5e: not found\n"


def complaints(status: int, said: str, complained: str = "") -> list[str]:
    return checking._complaints(subprocess.CompletedProcess([], status, said, complained))


def test_what_restic_says_of_its_work_is_no_complaint() -> None:
    assert complaints(0, SOUND) == []


@pytest.mark.parametrize(
    ("status", "said", "complained"),
    [
        (1, SOUND, ""),
        (0, SOUND.replace("no errors were found\n", ""), ""),
        (0, "", ""),
        (0, SOUND, DAMAGED),
        (0, SOUND + DAMAGED, ""),
        (1, SOUND.replace("no errors were found", "Fatal: repository contains errors"), DAMAGED),
    ],
    ids=["status alone", "no word of success", "silent", "a complaint beside", "among the words", "plain"],
)
def test_anything_less_is_a_complaint(status: int, said: str, complained: str) -> None:
    found = complaints(status, said, complained)
    assert found
    assert DAMAGED.strip() in found or not complained
