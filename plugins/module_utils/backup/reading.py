# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading the bytes of a backup: files against their SHA-256, the base by pg_verifybackup against its manifest.

Of the base, parts can be read: pg_verifybackup then sees a directory of links to them, and a manifest of them alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
import typing as t
from concurrent.futures import ThreadPoolExecutor

from ..files import sha256_of
from ..processes import run
from .contents import Look, Problem, manifest_path, shown
from .programs import guarded, program_failed, workers
from .remembered import Budget, Readings, Remembered

_SUCCESS = "backup successfully verified"
_MOST_PROBLEMS = 200
# What is read of a base at a time, so that a budget is kept and a killed run has not read for nothing.
_BATCH_BYTES = 1 << 30
_BATCH_FILES = 20_000
_SAVE_EVERY = 30.0

# How pg_verifybackup names a file that it complains of.
_NAMED = re.compile(r'"([^"]+)"')
# By this file pg_verifybackup tells a directory with a backup from one with its archives.
BASE_VERSION = "base/PG_VERSION"


class Outcome(t.NamedTuple):
    """What reading showed."""

    problems: list[Problem]
    bytes: int
    left_bytes: int


class _Task(t.NamedTuple):
    """What is read in one go: one file with a SHA-256, or some of the base."""

    paths: list[str]
    bytes: int
    read: t.Callable[[list[str]], tuple[list[Problem], bool]]


def read_files(
    look: Look, paths: t.Sequence[str], bin_dir: str, remembered: Remembered | None, readings: Readings | None
) -> Outcome:
    """Read *paths*, which are there and have their sizes; what is as it was written is kept in *readings*."""
    tasks = _tasks(look, paths, bin_dir, remembered)
    budget = remembered.budget if remembered else Budget()
    problems: list[Problem] = []
    read = left = 0

    def carry_out(task: _Task) -> tuple[_Task, tuple[list[Problem], bool] | None]:
        if not budget.take(task.bytes):
            return task, None
        if remembered:
            for path in task.paths:
                drop_cached(look.path(path))
        return task, task.read(task.paths)

    saved = time.monotonic()
    pool = ThreadPoolExecutor(max(2, workers()))
    try:
        for task, outcome in pool.map(carry_out, tasks):
            if outcome is None:
                left += task.bytes
                continue
            read += task.bytes
            problems += outcome[0]
            if readings and outcome[1]:
                _keep(look, task.paths, readings)
            if readings and time.monotonic() - saved > _SAVE_EVERY:
                readings.save(damaged=bool(problems))
                saved = time.monotonic()
    finally:
        pool.shutdown(cancel_futures=True)
    return Outcome(problems, read, left)


def _keep(look: Look, paths: t.Iterable[str], readings: Readings) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            before, after = look.found[path], os.lstat(look.path(path))
            if (before.st_ino, before.st_ctime_ns) == (after.st_ino, after.st_ctime_ns):
                readings.keep(path, before)


def _tasks(look: Look, paths: t.Sequence[str], bin_dir: str, remembered: Remembered | None) -> list[_Task]:
    def read_base(parts: list[str]) -> tuple[list[Problem], bool]:
        return _read_base(look, parts, bin_dir, remembered)

    def read_one(parts: list[str]) -> tuple[list[Problem], bool]:
        return _read_one(look, parts[0])

    size = {path: look.expected[path].bytes for path in paths}
    tasks = [_Task([path], size[path], read_one) for path in paths if look.expected[path].sha256]
    base = [path for path in paths if not look.expected[path].sha256]
    batches = batch(base, size) if remembered else [base]
    return tasks + [_Task(parts, sum(size[path] for path in parts), read_base) for parts in batches if parts]


def batch(paths: t.Iterable[str], size: t.Mapping[str, int]) -> list[list[str]]:
    """*paths* in their order, in parts of about a gibibyte."""
    batches: list[list[str]] = [[]]
    taken = 0
    for path in paths:
        if batches[-1] and (taken + size[path] > _BATCH_BYTES or len(batches[-1]) >= _BATCH_FILES):
            batches.append([])
            taken = 0
        batches[-1].append(path)
        taken += size[path]
    return batches


def _read_one(look: Look, path: str) -> tuple[list[Problem], bool]:
    try:
        if sha256_of(look.path(path)) != look.expected[path].sha256:
            return [Problem(path, f"{shown(path)} has another content than was written (its SHA-256 differs)")], False
    except OSError as error:
        return [Problem(path, f"{shown(path)}: {error.strerror}")], False
    return [], True


def _read_base(look: Look, paths: list[str], bin_dir: str, remembered: Remembered | None) -> tuple[list[Problem], bool]:
    """Let pg_verifybackup read *paths*, all that there is of the base or some of it."""
    everything = {path for path, entry in look.expected.items() if not entry.sha256}
    whole = base_command(bin_dir, look.path("base"))
    if remembered is None or everything == set(paths):
        return _by_pg_verifybackup(look, whole)
    try:
        with remembered.view() as view:
            directory, manifest = _make_view(look, [*paths, BASE_VERSION], view)
            found = _by_pg_verifybackup(look, [*base_command(bin_dir, directory), f"--manifest-path={manifest}"])
    except OSError:
        return _by_pg_verifybackup(look, whole)  # no room for the links: to read all of it takes none
    # What is wrong with some of it is told of the whole, so that nothing but the backup itself can be the reason.
    return _by_pg_verifybackup(look, whole) if found[0] else found


def _by_pg_verifybackup(look: Look, command: list[str]) -> tuple[list[Problem], bool]:
    """What pg_verifybackup complains of; its success is believed only if it says so and says nothing else."""
    done = run(guarded(command), accept=range(-64, 256), what="run pg_verifybackup")
    if done.returncode not in (0, 1):
        # It was ended, or crashed: that says nothing about the backup.
        raise program_failed("read the base with pg_verifybackup", done.returncode, done.stderr or done.stdout)
    complaints = base_problems(done.returncode, done.stdout + "\n" + done.stderr)
    return [Problem(_named(look, words), words) for words in complaints], not complaints


def _named(look: Look, words: str) -> str:
    """The path of the file that pg_verifybackup complains of, as it names it: below the base, or in full."""
    found = _NAMED.search(words)
    return os.path.relpath(os.path.join(look.path("base"), found.group(1)), look.backup.directory) if found else ""


def _make_view(look: Look, paths: t.Sequence[str], view: str) -> tuple[str, str]:
    """Links to *paths* and a manifest of them alone in the new directory *view*; returns where both are."""
    directory, manifest = os.path.join(view, "base"), os.path.join(view, "manifest")
    made = {directory}
    os.mkdir(directory, 0o700)
    wanted = set(paths)
    entries = [e for e in look.manifest["Files"] if f"base/{manifest_path(e)}" in wanted]
    for path in wanted:
        link = os.path.join(view, path)
        parent = os.path.dirname(link)
        if parent not in made:
            os.makedirs(parent, mode=0o700, exist_ok=True)
            made.add(parent)
        os.symlink(look.path(path), link)
    with open(os.open(manifest, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as stream:
        stream.write(partial_manifest(look.manifest, entries))
    return directory, manifest


def partial_manifest(manifest: t.Mapping[str, t.Any], entries: t.Sequence[t.Mapping[str, t.Any]]) -> bytes:
    """A manifest of *entries* alone, with its own checksum on its last line, as PostgreSQL wants it."""
    document = {**manifest, "Files": list(entries), "WAL-Ranges": []}
    document.pop("Manifest-Checksum")
    body = json.dumps(document)[:-1].encode() + b",\n"
    return body + f'"Manifest-Checksum": "{hashlib.sha256(body).hexdigest()}"}}\n'.encode()


def base_command(bin_dir: str, base: str) -> list[str]:
    # The WAL is elsewhere, and goes further than pg_verifybackup would read: see verification.
    return [os.path.join(bin_dir, "pg_verifybackup"), "--no-parse-wal", base]


def base_problems(status: int, said: str) -> list[str]:
    """Problems in the exit status and the words of a pg_verifybackup that has ended."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    complaints = [line for line in lines if line != _SUCCESS]
    if status == 0 and _SUCCESS in lines and not complaints:
        return []
    return [f"base: {line}" for line in complaints[:_MOST_PROBLEMS]] or [
        f"base: pg_verifybackup ended with {status} and did not say that the backup is sound"
    ]


def drop_cached(path: str) -> None:
    """What is verified is the disk: let the next reading of *path* come from there, not from memory."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
