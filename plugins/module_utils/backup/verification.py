# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Is a backup still as it was written? Every file is in its place, nothing else is, and every byte has its hash.

The base is read by pg_verifybackup against its manifest; everything else, that manifest included, against the SHA-256
in ``backup.json`` and ``files.json``, and ``backup.json`` against the hash that it holds of itself.
"""

from __future__ import annotations

import os
import stat
import subprocess
import typing as t
from concurrent.futures import ThreadPoolExecutor

from ..files import read_json, sha256_of
from ..processes import run
from .programs import guarded
from .repository import LOCK, METADATA, Backup
from .wal import gaps, parse_segments, segments_between

FILES_MANIFEST = "files.json"
BASE_MANIFEST = "base/backup_manifest"

# In the manifest of the base, but pg_verifybackup does not look at them: a restore may rewrite them.
NOT_LOOKED_AT = ("postgresql.auto.conf", "recovery.signal", "standby.signal")

_SUCCESS = "backup successfully verified"
_READERS = 2
_MOST_PROBLEMS = 20

Expected = t.Dict[str, t.Dict[str, t.Any]]


def verify_files(backup: Backup, *, quick: bool = False) -> list[str]:
    """What is wrong with everything that the base's manifest does not cover, in words."""
    expected: Expected = {entry["path"]: entry for entry in backup.metadata["files"]}
    problems = _compare(backup.directory, expected, quick)
    if FILES_MANIFEST in expected and not problems:
        copies = read_files_manifest(backup)
        problems += _compare(backup.directory, copies, quick)
        expected.update(copies)
    problems += [
        f"{path} does not belong to the backup"
        for path in _present(backup.directory)
        if path not in expected and path not in (METADATA, LOCK)
    ]
    problems += [
        f"the directory {path} is missing"
        for path in backup.metadata["empty_directories"]
        if not os.path.isdir(backup.path(path))
    ]
    return problems


def read_files_manifest(backup: Backup) -> Expected:
    """Path in the backup → entry, for each copied application file."""
    sources = read_json(backup.path(FILES_MANIFEST)) or []
    return {
        f"files/{number}/{entry['path']}": entry
        for number, source in enumerate(sources)
        for entry in source["entries"]
        if entry["kind"] == "file"
    }


def _compare(directory: str, expected: Expected, quick: bool) -> list[str]:
    def problem(path: str) -> str:
        return _file_problem(os.path.join(directory, path), path, expected[path], quick)

    with ThreadPoolExecutor(_READERS) as pool:
        return [words for words in pool.map(problem, sorted(expected)) if words]


def _file_problem(full: str, path: str, entry: dict[str, t.Any], quick: bool) -> str:
    shown = path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    try:
        status = os.lstat(full)
        if not stat.S_ISREG(status.st_mode):
            return f"{shown} is no plain file any more"
        if status.st_size != entry["bytes"]:
            return f"{shown} has {status.st_size} bytes instead of {entry['bytes']}"
        if not quick and sha256_of(full) != entry["sha256"]:
            return f"{shown} has another content than was written (its SHA-256 differs)"
    except OSError as error:
        return f"{shown}: {error.strerror}"
    return ""


def _present(directory: str) -> t.Iterator[str]:
    """Paths of all files of the backup but those below base/, which pg_verifybackup sees to."""
    for parent, directories, names in os.walk(directory):
        below = os.path.relpath(parent, directory)
        if below == ".":
            below = ""
            directories[:] = [name for name in directories if name != "base"]
        yield from (os.path.join(below, name) for name in names)


def verify_base(bin_dir: str, base: str, *, quick: bool = False) -> list[str]:
    """What pg_verifybackup complains of; its success is believed only if it says so and says nothing else."""
    done = run(base_command(bin_dir, base, quick=quick), accept=range(256), what="run pg_verifybackup")
    return base_problems(done.returncode, done.stdout + "\n" + done.stderr)


def start_verifying_base(bin_dir: str, base: str) -> subprocess.Popen[str]:
    """The same beside other work; hand what came of it to :func:`base_problems`."""
    return subprocess.Popen(
        guarded(base_command(bin_dir, base, quick=False)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, "LC_ALL": "C"},
    )


def base_command(bin_dir: str, base: str, *, quick: bool) -> list[str]:
    # The WAL is elsewhere, and goes further than pg_verifybackup would read: see wal_problems.
    command = [os.path.join(bin_dir, "pg_verifybackup"), "--no-parse-wal"]
    return [*command, *(["--skip-checksums"] if quick else []), base]


def base_problems(status: int, said: str) -> list[str]:
    """Problems in the exit status and the words of a pg_verifybackup that has ended."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    complaints = [line for line in lines if line != _SUCCESS]
    if status == 0 and _SUCCESS in lines and not complaints:
        return []
    return [f"base: {line}" for line in complaints[:_MOST_PROBLEMS]] or [
        f"base: pg_verifybackup ended with {status} and did not say that the backup is sound"
    ]


def wal_problems(bin_dir: str, directory: str, metadata: dict[str, t.Any], *, quick: bool = False) -> list[str]:
    """Whether the WAL reaches without a gap from the start of the backup to its restore point."""
    start, end = metadata["start_lsn"], metadata["restore_point"]["lsn"]
    size = metadata["settings"]["wal_segment_size"]
    problems = gaps(directory, segments_between(metadata["timeline"], start, end, size), size)
    if not problems and not quick:
        complaint = parse_segments(bin_dir, directory, metadata["timeline"], start, end)
        problems = [f"WAL from {start} to {end}: {complaint}"] if complaint else []
    return problems
