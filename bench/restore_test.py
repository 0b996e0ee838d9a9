"""How fast a restore test is: against a copy, a start and the fingerprint queries alone, in the same run.

    make bench-backup
    .venv/bin/python bench/restore_test.py [--scale 150] [--rounds 3]

Prints medians, MB/s of the restored cluster, and ratios to the bare restore. What the restore test does beyond it: it
verifies every byte, checks identities, asserts the marker row, compares catalogs, removes the cluster, and (last rows)
runs pg_amcheck and restores the dumps. Its own checks are all that it does with the started cluster without those two.
A scratch cluster never needs to reach the disk; a restore in earnest does, which is why there are two rows of it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "collections"), str(ROOT / "tests")]

from ansible_collections.wellkept.maintenance.plugins.module_utils import fingerprint  # noqa: E402
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.repository import (  # noqa: E402
    Backup,
    bytes_used,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore.scratch_cluster import ScratchCluster  # noqa: E402
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore.scratch_directory import (  # noqa: E402
    prepare_base,
    scratch_directory,
)
from support.postgresql import UNPRIVILEGED, embedded_bin_dir, postgres_server  # noqa: E402
from support.restore import RestoreSite  # noqa: E402

MEGA = 1_000_000


# A restore in earnest: the server brings the files to the disk before it starts.
DURABLE = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}


def bare_restore(site: RestoreSite, backup: Backup, **settings: str) -> tuple[float, float]:
    """Seconds of cp -a (or of unpacking) and the start, and of the fingerprint queries alone."""
    prepare_base(str(site.scratch_dir), [])
    metadata = backup.metadata
    with scratch_directory(str(site.scratch_dir), {}) as directory:
        cluster = ScratchCluster(directory, str(embedded_bin_dir()), UNPRIVILEGED)
        began = time.monotonic()
        if backup.metadata.get("packed"):
            site.engine.restore(backup.label, cluster.data)
        else:
            subprocess.run(["cp", "-a", "--reflink=auto", backup.path("base"), cluster.data], check=True)
        cluster.take_wal(backup.path("wal"))
        target = {"recovery_target_name": metadata["restore_point"]["name"], **settings}
        cluster.configure(int(metadata["server_version"]), "", target)
        try:
            cluster.start(600)
            cluster.superuser = "postgres"
            queries = time.monotonic()
            for database, recorded in metadata["fingerprints"].items():
                with cluster.connect(database) as connection:
                    tables = [t for t in fingerprint.tables(connection)[0] if t.key in recorded]
                    fingerprint.fingerprint(connection, tables)
            ended = time.monotonic()
        finally:
            cluster.stop()
    return queries - began, ended - queries


def restore_test(site: RestoreSite, **options: Any) -> tuple[float, dict[str, float]]:
    began = time.monotonic()
    shown = site.test(**options)
    seconds = time.monotonic() - began
    assert not shown["failed"], shown["msg"]
    return seconds, {name: metric["value"] for name, metric in shown["metrics"].items()}


BARE, QUERIES = "copy and start alone, nothing synced", "fingerprint queries alone"
EARNEST = "copy and start alone, fsync on"
BARE_PACKED = "unpack (zstd) and start alone"
CONTENT, CONTENT_PACKED = "restore test, content alone", "restore test of zstd, content alone"
AMCHECK, WHOLE = "restore test with pg_amcheck", "restore test with pg_amcheck and dumps"
CHECKS = "its own checks"
PHASES = ("verify", "restore", "replay", "start", "compare", "catalogs", "amcheck", "dump", "removal")


def one_round(
    site: RestoreSite, plain: Backup, packed: Backup, rows: dict[str, list[float]], *, dumps: bool = True
) -> None:
    def note(kind: str, seconds: float) -> None:
        print(f"{kind}: {seconds:.2f} s", file=sys.stderr, flush=True)
        rows.setdefault(kind, []).append(seconds)

    content = {"amcheck": False, "restore_dump": False}
    for backup, bare, kinds in (
        (plain, BARE, {CONTENT: content, AMCHECK: {"restore_dump": False}, **({WHOLE: {}} if dumps else {})}),
        (packed, BARE_PACKED, {CONTENT_PACKED: content}),
    ):
        # The module tests the newest backup.
        with only(site, backup):
            os.sync()
            restored, queries = bare_restore(site, backup)
            note(bare, restored)
            if backup is plain:
                note(QUERIES, queries)
                os.sync()
                note(EARNEST, bare_restore(site, backup, **DURABLE)[0])
            for kind, options in kinds.items():
                os.sync()
                seconds, metrics = restore_test(site, **options)
                note(kind, seconds)
                if kind == CONTENT:
                    note(CHECKS, metrics["checks_seconds"])
                if kind in (CONTENT, WHOLE, CONTENT_PACKED):
                    for phase in PHASES:
                        if f"{phase}_seconds" in metrics:
                            note(f"  of {kind}: {phase}", metrics[f"{phase}_seconds"])


@contextlib.contextmanager
def only(site: RestoreSite, backup: Backup) -> Iterator[None]:
    """The other backups are out of the way for the block."""
    others = [Path(other.directory) for other in site.repository.backups() if other.label != backup.label]
    aside = site.root / "aside"
    aside.mkdir()
    for other in others:
        other.rename(aside / other.name)
    try:
        yield
    finally:
        for other in others:
            (aside / other.name).rename(other)
        aside.rmdir()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=int, default=150, help="of pgbench; 150 is about 2.3 GB")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-dumps", action="store_true", help="leave out the restore of dumps, the longest part")
    arguments = parser.parse_args()
    rows: dict[str, list[float]] = {}
    with (
        postgres_server({"shared_buffers": "256MB", "max_wal_size": "4GB"}) as server,
        tempfile.TemporaryDirectory(prefix="wellkept-bench-") as at,
    ):
        site = RestoreSite(server, Path(at))
        site.fill_pgbench(arguments.scale)
        plain = site.back_up(dump=not arguments.no_dumps)
        packed = site.back_up(dump=False, compression="zstd")
        size = bytes_used(plain.path("base"))
        for _ in range(arguments.rounds):
            one_round(site, plain, packed, rows, dumps=not arguments.no_dumps)
    show({kind: statistics.median(seconds) for kind, seconds in rows.items()}, size, arguments.rounds)


def show(medians: dict[str, float], size: int, rounds: int) -> None:
    print(f"{size / MEGA:.0f} MB base, {rounds} rounds, medians, {os.cpu_count()} cores\n")
    print(f"| {'':58} | seconds | MB/s |\n|{'-' * 60}|---:|---:|")
    for kind, seconds in medians.items():
        print(f"| {kind:58} | {seconds:.2f} | {size / MEGA / seconds:.0f} |")
    both = medians[BARE] + medians[QUERIES]
    packed = medians[BARE_PACKED] + medians[QUERIES]
    print(f"\n| {'ratio':68} | |\n|{'-' * 70}|---:|")
    for words, ratio in {
        "its own checks: seconds, against the fingerprint queries alone": medians[CHECKS] / medians[QUERIES],
        "content alone: speed, against copy and start, fsync on": medians[EARNEST] / medians[CONTENT],
        "content alone: speed, against copy and start, nothing synced": medians[BARE] / medians[CONTENT],
        "content alone: speed, against the same and those queries": both / medians[CONTENT],
        "content alone, zstd: speed, against unpack, start and those queries": packed / medians[CONTENT_PACKED],
        "with pg_amcheck: speed, against copy and start, fsync on": medians[EARNEST] / medians[AMCHECK],
        "with pg_amcheck: speed, against copy, start and those queries": both / medians[AMCHECK],
        "with pg_amcheck and dumps: speed, against the same": both / medians[WHOLE] if WHOLE in medians else None,
    }.items():
        if ratio is None:
            continue
        print(f"| {words:68} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
