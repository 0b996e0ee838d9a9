"""The cluster that `bench/database.py` measures on: built once, kept as a snapshot, restored and cold for each run."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import database_data
from support.postgresql import PostgresServer

BUILDING = {
    "fsync": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "autovacuum": "off",
    "shared_buffers": "512MB",
    "maintenance_work_mem": "256MB",
    "max_wal_size": "4GB",
    "min_wal_size": "32MB",
    "wal_recycle": "off",
}
# Of a small server with care. Autovacuum is on, as it should be, but does not come round while something is measured.
MEASURING = {
    "fsync": "on",
    "wal_level": "replica",
    "max_wal_senders": "10",
    "autovacuum": "on",
    "autovacuum_naptime": "1d",
    "shared_buffers": "256MB",
    "maintenance_work_mem": "128MB",
    "max_wal_size": "4GB",
    "min_wal_size": "80MB",
    "wal_recycle": "on",
    "checkpoint_timeout": "15min",
    "track_io_timing": "on",
    "shared_preload_libraries": "pg_stat_statements",
}


class Io(NamedTuple):
    read: int
    written: int


class BenchCluster:
    """A server in *directory*/run, and what it is restored from in *directory*/snapshot."""

    def __init__(self, directory: Path, bin_dir: Path, scale: float, warm: bool = False) -> None:
        self.directory = directory
        self.scale = scale
        self.warm = warm
        self.snapshot = directory / "snapshot"
        (directory / "run").mkdir(parents=True, exist_ok=True)
        directory.chmod(0o755)
        self.server = PostgresServer(directory / "run", bin_dir)
        self.server.settings = {
            name: value for name, value in self.server.settings.items() if name not in ("summarize_wal", "port")
        } | BUILDING

    @property
    def major(self) -> int:
        shown = subprocess.run(
            [str(self.server.bin_dir / "postgres"), "--version"], check=True, capture_output=True, text=True
        ).stdout
        found = re.search(r"\d+", shown)
        assert found, shown
        return int(found.group())

    @property
    def facts(self) -> dict[str, Any]:
        """What was noted when the snapshot was taken."""
        found: dict[str, Any] = json.loads((self.snapshot / "facts.json").read_text())
        return found

    def _stamp(self) -> str:
        source = Path(database_data.__file__).read_bytes() + Path(__file__).read_bytes()
        return f"{self.major} {self.scale} {hashlib.sha256(source).hexdigest()}"

    # -- the snapshot --------------------------------------------------------------------------------------------------

    def build(self) -> None:
        """Make the data and the snapshot, unless there is one of the same."""
        if (self.snapshot / "facts.json").exists() and self.facts["stamp"] == self._stamp():
            return
        for path in (self.snapshot, self.server.data):
            shutil.rmtree(path, ignore_errors=True)
        began = time.monotonic()
        self.server.create()
        self._start()
        database_data.make_data(self.server, self.scale)
        self.server.stop("fast")
        with (self.server.data / "postgresql.conf").open("a") as stream:
            stream.writelines(f"{name} = '{value}'\n" for name, value in MEASURING.items())
        self.snapshot.mkdir()
        copy_changes(self.server.data, self.snapshot / "data")
        seconds = time.monotonic() - began
        facts = {"stamp": self._stamp(), "seconds": round(seconds), "bytes": bytes_below(self.snapshot / "data/base")}
        (self.snapshot / "facts.json").write_text(json.dumps(facts | {"fresh": self._fresh_sizes()}, indent=1))

    def _fresh_sizes(self) -> dict[str, int]:
        """What each index measures when it is made anew: the truth about bloat, in nobody's formula."""
        self._start("fsync=off")
        for database in database_data.DATABASES:
            self.server.sql(f"REINDEX DATABASE {database}", database)
        sizes = self.index_sizes()
        self.server.stop("fast")
        return sizes

    def index_sizes(self) -> dict[str, int]:
        return {
            f"{database}.{name}": size
            for database in database_data.DATABASES
            for name, size in self.server.sql(
                "SELECT c.oid::regclass::text, pg_relation_size(c.oid) FROM pg_class c"
                " WHERE c.relkind = 'i' AND c.relnamespace = 'public'::regnamespace",
                database,
            )
        }

    # -- a run ---------------------------------------------------------------------------------------------------------

    def restore(self) -> int | None:
        """Start from the snapshot again, with nothing of it in the page cache; returns the bytes that still are."""
        copy_changes(self.snapshot / "data", self.server.data)
        if self.warm:
            self._start("fsync=off")
            return None
        files = [path for path in self.server.data.rglob("*") if path.is_file()]
        for path in files:
            forget(path)
        cached = cached_bytes(files)
        self._start()
        return cached

    def stop(self) -> None:
        self.server.stop("fast")

    def _start(self, *settings: str) -> None:
        lines = [f"port = {self.server.port}", *settings]
        (self.server.data / "postgresql.auto.conf").write_text("\n".join(lines) + "\n")
        self.server.start()

    # -- what it costs -------------------------------------------------------------------------------------------------

    def wal(self) -> int:
        [(position,)] = self.server.sql("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint")
        return int(position)

    def io(self, without: Iterable[int] = ()) -> Io:
        """Bytes that the server's processes have had from and sent to the disk so far, *without* some of them.

        The postmaster's own figures hold those of its children that have ended.
        """
        postmaster = int((self.server.data / "postmaster.pid").read_text().split()[0])
        seen = [_io(postmaster)] + [_io(pid) for pid in _children(postmaster)]
        load = [_io(pid) for pid in without]
        return Io(
            sum(each.read for each in seen) - sum(each.read for each in load),
            sum(each.written for each in seen) - sum(each.written for each in load),
        )


def _io(pid: int) -> Io:
    try:
        figures = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    except OSError:
        return Io(0, 0)
    return Io(int(figures["read_bytes"]), int(figures["write_bytes"]))


def _children(parent: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            after_the_name = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(after_the_name[1]) == parent:
            found.append(int(path.parent.name))
    return found


# -- files -------------------------------------------------------------------------------------------------------------


def copy_changes(source: Path, target: Path) -> None:
    """Make *target* what *source* is, copying only the files whose size or time differs."""
    target.mkdir(exist_ok=True)
    shutil.copystat(source, target)
    _same_owner(source, target)
    wanted = {entry.name: entry for entry in os.scandir(source)}
    for entry in os.scandir(target):
        original = wanted.get(entry.name)
        if original is None or original.is_dir() != entry.is_dir():
            shutil.rmtree(entry.path) if entry.is_dir() else os.unlink(entry.path)
    for name, entry in wanted.items():
        there = target / name
        if entry.is_dir():
            copy_changes(Path(entry.path), there)
        elif not _same(entry, there):
            shutil.copy2(entry.path, there)
            _same_owner(Path(entry.path), there)


def _same(entry: os.DirEntry[str], there: Path) -> bool:
    try:
        other = there.stat()
    except FileNotFoundError:
        return False
    status = entry.stat()
    return (status.st_size, status.st_mtime_ns) == (other.st_size, other.st_mtime_ns)


def _same_owner(source: Path, target: Path) -> None:
    if os.geteuid() == 0:
        status = source.stat()
        os.chown(target, status.st_uid, status.st_gid)


def forget(path: Path) -> None:
    """Drop the file from the page cache: of this file alone, so that other work on the machine is not disturbed."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        # What has not been written yet is not dropped.
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def cached_bytes(files: list[Path]) -> int | None:
    """How much of *files* is in the page cache, as fincore sees it; None where there is no fincore."""
    if shutil.which("fincore") is None:
        return None
    total = 0
    for start in range(0, len(files), 500):
        batch = [str(path) for path in files[start : start + 500]]
        shown = subprocess.run(
            ["fincore", "--bytes", "--noheadings", "--output", "RES", *batch],
            check=False,
            capture_output=True,
            text=True,
        )
        total += sum(int(line) for line in shown.stdout.split())
    return total


def bytes_below(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
