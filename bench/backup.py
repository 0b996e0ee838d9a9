"""How fast a backup and its verification are: against plain pg_basebackup, cp and pg_verifybackup, in the same run.

    .venv/bin/python bench/backup.py [--rows 4000000] [--rounds 3]

Prints medians, and ratios to plain pg_basebackup. The module's own backup does more than copy: it brings the WAL,
verifies every byte, dumps, fingerprints and hashes; the rows without a dump and the phase `base` show what of it the
copy costs. Verifications read from the disk, not from memory: what is cached is dropped before each.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "collections"), str(ROOT / "tests")]

from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.reading import drop_cached  # noqa: E402
from support.modules import run_module  # noqa: E402
from support.postgresql import PostgresServer, postgres_server  # noqa: E402

MEGA = 1_000_000


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.monotonic()
    result = work()
    return time.monotonic() - began, result


def fill(server: PostgresServer, rows: int) -> int:
    """Some hundred bytes a row, half of it compressible; returns the bytes of the data directory without WAL."""
    server.sql(
        "CREATE TABLE submission AS SELECT g AS id, md5(g::text) || md5((g * 7)::text) AS hash, "
        f"repeat('answer ', 20) AS text, now() - g * interval '1 second' AS made FROM generate_series(1, {rows}) g"
    )
    server.sql("ALTER TABLE submission ADD PRIMARY KEY (id)")
    server.sql("VACUUM ANALYZE submission")
    server.sql("CHECKPOINT")
    paths = (path for path in server.data.rglob("*") if path.is_file() and "pg_wal" not in path.parts)
    return sum(path.stat().st_size for path in paths)


def plain_basebackup(server: PostgresServer, directory: Path) -> None:
    environment = {**os.environ, "PGHOST": str(server.socket_dir), "PGPORT": str(server.port), "PGUSER": "postgres"}
    command = [str(server.bin_dir / "pg_basebackup"), "-D", str(directory / "plain"), "--checkpoint=fast"]
    subprocess.run(command, check=True, env=environment)


def plain_copy(server: PostgresServer, directory: Path) -> None:
    subprocess.run(["cp", "-a", "--reflink=never", str(server.data), str(directory / "copy")], check=True)
    subprocess.run(["sync", "-f", str(directory)], check=True)


def backup(server: PostgresServer, directory: Path, **options: Any) -> dict[str, Any]:
    shown = run_module(
        "backup",
        {
            **server.login(),
            "bin_dir": str(server.bin_dir),
            "repository": str(directory / "repository"),
            "state_dir": str(directory / "state"),
            "interval": "0",
            "full_every": "0",
            **options,
        },
        timeout=3600,
    )
    assert not shown["failed"], shown["msg"]
    return shown


def verify(server: PostgresServer, directory: Path, **options: Any) -> dict[str, Any]:
    where = {"repository": str(directory / "repository"), "state_dir": str(directory / "state")}
    shown = run_module("backup_verification", {**where, "bin_dir": str(server.bin_dir), **options}, timeout=3600)
    assert not shown["failed"], shown["msg"]
    return shown


def verifications(server: PostgresServer, directory: Path) -> dict[str, tuple[float, int]]:
    """Seconds and bytes of reading what the repository holds: by pg_verifybackup, for the first time, and again."""
    bases = list((directory / "repository" / "main").glob("*/base"))
    files = [path for base in bases for path in base.rglob("*") if path.is_file()]
    for path in files:
        drop_cached(str(path))
    program = str(server.bin_dir / "pg_verifybackup")
    plain = timed(lambda: [subprocess.run([program, "--no-parse-wal", base], check=True) for base in bases])[0]
    found = {"pg_verifybackup of the bases alone": (plain, sum(path.stat().st_size for path in files))}
    for name in ("backup_verification, for the first time", "backup_verification, again"):
        metrics = verify(server, directory)["metrics"]
        # The module's own time: Python's start, about 0.3 s, is the same for a gigabyte and for a terabyte.
        found[name] = (metrics["verification_seconds"]["value"], metrics["verified_bytes"]["value"])
    return found


def one_round(server: PostgresServer) -> tuple[dict[str, float], dict[str, tuple[float, int]]]:
    """Seconds of each way, in a directory of its own that is removed afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="wellkept-bench-"))
    try:
        seconds = {
            "cp -a and sync": timed(lambda: plain_copy(server, directory))[0],
            "plain pg_basebackup": timed(lambda: plain_basebackup(server, directory))[0],
        }
        seconds["backup, no dump"], shown = timed(lambda: backup(server, directory, dump=False))
        seconds["  of it: base"] = shown["metrics"]["base_seconds"]["value"]
        seconds["backup, with dump"], shown = timed(lambda: backup(server, directory))
        seconds["  of it: dump"] = shown["metrics"]["dump_seconds"]["value"]
        server.sql("UPDATE submission SET made = now() WHERE id % 100 = 0")
        incremental = {"dump": False, "full_every": "7d"}
        seconds["incremental, no dump, 1 % of rows changed"] = timed(lambda: backup(server, directory, **incremental))[
            0
        ]
        seconds["nothing due"] = timed(lambda: backup(server, directory, interval="20h"))[0]
        shutil.rmtree(directory / "repository" / "main" / "verified", ignore_errors=True)
        return seconds, verifications(server, directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with postgres_server({"shared_buffers": "256MB", "max_wal_size": "4GB"}) as server:
        size = fill(server, arguments.rows)
        both = [one_round(server) for _ in range(arguments.rounds)]
    rounds = [seconds for seconds, _verified in both]
    print(f"\n{size / MEGA:.0f} MB of data, medians of {arguments.rounds} rounds\n")
    print("| way | seconds | MB/s | against pg_basebackup |\n|---|---|---|---|")
    plain = statistics.median(each["plain pg_basebackup"] for each in rounds)
    for name in rounds[0]:
        median = statistics.median(each[name] for each in rounds)
        print(f"| {name} | {median:.2f} | {size / MEGA / median:.0f} | {median / plain:.2f} |")
    print_verifications([verified for _seconds, verified in both])


def print_verifications(rounds: list[dict[str, tuple[float, int]]]) -> None:
    print("\n| verification | seconds | MB | MB/s | against the first time |\n|---|---|---|---|---|")
    first = statistics.median(each["backup_verification, for the first time"][0] for each in rounds)
    for name in rounds[0]:
        median = statistics.median(each[name][0] for each in rounds)
        megabytes = rounds[0][name][1] / MEGA
        print(f"| {name} | {median:.2f} | {megabytes:.0f} | {megabytes / median:.0f} | {median / first:.2f} |")


if __name__ == "__main__":
    main()
