"""How fast a restore test is: against cp -a, start and the fingerprint queries alone, in the same run.

    .venv/bin/python bench/restore_test.py [--scale 40] [--rounds 5]

Prints medians, MB/s of the restored cluster, and ratios to the bare restore. What the restore test does beyond it: it
verifies every byte, checks identities, asserts the marker row, and (last rows) runs pg_amcheck and restores the dumps.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
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


def bare_restore(site: RestoreSite, backup: Backup) -> tuple[float, float]:
    """cp -a, start, fingerprints; returns the seconds of all, and of the fingerprint queries alone."""
    prepare_base(str(site.scratch_dir), [])
    metadata = backup.metadata
    with scratch_directory(str(site.scratch_dir), {}) as directory:
        cluster = ScratchCluster(directory, str(embedded_bin_dir()), UNPRIVILEGED)
        began = time.monotonic()
        subprocess.run(["cp", "-a", "--reflink=auto", backup.path("base"), cluster.data], check=True)
        cluster.take_wal(backup.path("wal"))
        target = {"recovery_target_name": metadata["restore_point"]["name"]}
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
    return ended - began, ended - queries


def restore_test(site: RestoreSite, **options: Any) -> tuple[float, dict[str, float]]:
    began = time.monotonic()
    shown = site.test(**options)
    seconds = time.monotonic() - began
    assert not shown["failed"], shown["msg"]
    return seconds, {name: metric["value"] for name, metric in shown["metrics"].items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=int, default=40, help="of pgbench; 40 is about 600 MB")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with (
        postgres_server({"shared_buffers": "256MB", "max_wal_size": "4GB"}) as server,
        tempfile.TemporaryDirectory() as at,
    ):
        site = RestoreSite(server, Path(at))
        site.fill_pgbench(arguments.scale)
        backup = site.back_up()
        size = bytes_used(backup.path("base"))
        rows: dict[str, list[float]] = {}
        kinds = {
            "restore test, content alone": {"amcheck": False, "restore_dump": False},
            "restore test with pg_amcheck": {"restore_dump": False},
            "restore test with pg_amcheck and dumps": {},
        }
        for _ in range(arguments.rounds):
            os.sync()
            whole, queries = bare_restore(site, backup)
            rows.setdefault("cp -a, start, fingerprints", []).append(whole)
            rows.setdefault("  of it fingerprint queries", []).append(queries)
            for kind, options in kinds.items():
                os.sync()
                seconds, metrics = restore_test(site, **options)
                rows.setdefault(kind, []).append(seconds)
                if not options:
                    for phase in ("verify", "restore", "replay", "compare", "amcheck", "dump"):
                        rows.setdefault(f"  of it {phase}", []).append(metrics[f"{phase}_seconds"])
        show(rows, size, arguments.rounds)


def show(rows: dict[str, list[float]], size: int, rounds: int) -> None:
    medians = {kind: statistics.median(seconds) for kind, seconds in rows.items()}
    bare = medians["cp -a, start, fingerprints"]
    print(f"{size / MEGA:.0f} MB base, {rounds} rounds, medians, {os.cpu_count()} cores\n")
    print(f"| {'':42} | seconds | MB/s | ratio to bare |\n|{'-' * 44}|---:|---:|---:|")
    for kind, seconds in medians.items():
        ratio = "" if kind.startswith(" ") else f"{bare / seconds:.2f}"
        print(f"| {kind:42} | {seconds:.2f} | {size / MEGA / seconds:.0f} | {ratio} |")


if __name__ == "__main__":
    main()
