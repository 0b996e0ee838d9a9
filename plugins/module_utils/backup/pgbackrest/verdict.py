# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What ``pgbackrest verify`` says, read by its words: its exit status is 0 whatever it finds.

Asked for all words, the releases from 2.45 on say the same. A backup is believed to be sound only where a line says so:
one without a manifest is told of beside "status: ok", and one whose description is gone not at all.
"""

from __future__ import annotations

import re
import typing as t

# What makes it speak, and not wait 15 seconds before it tries a damaged file again.
ARGUMENTS = ("--output=text", "--verbose", "--job-retry=0", "--log-level-console=off", "--log-level-stderr=info")

_BACKUP = re.compile(
    r"^\s*backup: (\S+), status: ([^,]+), total files checked: (\d+), total valid files: (\d+)\s*$", re.MULTILINE
)
_ARCHIVE = re.compile(r"^\s*archiveId: (\S+), total WAL checked: (\d+), total valid WAL: (\d+)\s*$", re.MULTILINE)
_FILE = re.compile(r"(?:file missing|invalid checksum|invalid size|invalid result) '?([^\s':]+)'?(.*)")
_COUNTED = re.compile(r"([a-z ]+): (\d+)")
_NO_FILE = re.compile(r"^\s*(No usable .*|no archives .*|no backups .*)$", re.MULTILINE | re.IGNORECASE)
_MOST = 20


class Verdict(t.NamedTuple):
    """Of each backup that was named, what is wrong with it; of the archive, what is wrong with its files."""

    backups: dict[str, list[str]]
    archive: list[str]
    # What it found wrong beside these; empty when it told of backups and archive.
    general: list[str]
    wal_checked: int

    def of(self, label: str) -> list[str]:
        """What is wrong with the backup *label*, by pgBackRest's own label."""
        if label in self.backups:
            return [*self.general, *self.backups[label]]
        return [*self.general, f"pgbackrest verify does not say that {label} is valid"]


def read_verdict(said: str, complaints: str) -> Verdict:
    """The verdict in what was written to standard output, with the files that *complaints* (the log) names."""
    named = _named(complaints)
    backups = {}
    for label, status, checked, valid in _BACKUP.findall(said):
        problems = []
        if status != "valid" or checked != valid or checked == "0":
            ours = [words for path, words in named if path.partition("/")[0] in label]
            problems = [f"pgbackrest verify: {label} is {status}, {valid} of {checked} files are valid", *ours[:_MOST]]
        backups[label] = problems
    archive = []
    checked_wal = 0
    for identifier, checked, valid in _ARCHIVE.findall(said):
        checked_wal += int(checked)
        if checked != valid:
            ours = [words for path, words in named if path.startswith(f"{identifier}/")]
            archive += [f"{valid} of {checked} segments of {identifier} are valid", *ours[:_MOST]]
    general = [f"pgbackrest verify: {words.strip()}" for words in _NO_FILE.findall(said)]
    if not general and not re.search(r"^\s*status: (ok|error)", said, re.MULTILINE):
        general = ["pgbackrest verify gave no verdict"]
    return Verdict(backups, archive, general, checked_wal)


def _named(complaints: str) -> list[tuple[str, str]]:
    """The files that the log names, each with its words."""
    found = []
    for line in complaints.splitlines():
        match = _FILE.search(line)
        if match:
            found.append((match.group(1), match.group(0).strip()))
    return found
