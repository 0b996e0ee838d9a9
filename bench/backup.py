"""How fast a backup and its verification are: against pg_basebackup, pgbackrest, cp and pg_verifybackup, in one run.

    make bench-backup
    .venv/bin/python bench/backup.py [--rows 8000000] [--rounds 3] [--bin-dir /usr/lib/postgresql/15/bin]

Prints medians, and ratios to pg_basebackup; the ways take turns. The module's own backup does more than copy: it brings
the WAL, verifies every byte, dumps, fingerprints and hashes; the phases below it show what of it the copy costs.
Verifications read from the disk, not from memory: what is cached is dropped before each.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "collections"), str(ROOT / "tests")]

from backup_ways import BackupWays, Measured  # noqa: E402
from support.postgresql import PostgresServer, debian_bin_dir, embedded_bin_dir, postgres_server  # noqa: E402

MEGA = 1_000_000
PLAIN = "pg_basebackup"
FIRST, AGAIN = "backup_verification, first", "backup_verification, again"
FIRST_PACKED, AGAIN_PACKED = "backup_verification of zstd, first", "backup_verification of zstd, again"

Round = dict[str, Measured]


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


def backups(ways: BackupWays, number: int) -> Round:
    """Each way once; which one comes first changes from round to round."""
    bare = {"interval": "0", "full_every": "0", "dump": False}
    kinds = {
        "cp -a and sync": ways.copy,
        PLAIN: lambda: ways.basebackup("plain"),
        "pg_basebackup to tar, gzip": lambda: ways.basebackup("tar", "-Ft", "--compress=client-gzip:1"),
        "backup, no dump": lambda: ways.module("core", **bare),
        "backup, no dump, lz4": lambda: ways.module("core-lz4", compression="lz4", **bare),
        "backup, no dump, zstd": lambda: ways.module("core-zstd", compression="zstd", **bare),
        "backup, with dump": lambda: ways.module("dumped", **{**bare, "dump": True}),
    }
    if shutil.which("pgbackrest") and ways.server.major <= 15:
        for words, kind in (("uncompressed", "none"), ("zst", "zst"), ("lz4", "lz4")):
            level = ["--compress-level=1"] if kind != "none" else []
            options = [f"--compress-type={kind}", *level]
            kinds[f"pgbackrest, {words}"] = lambda kind=kind, options=options: ways.pgbackrest(f"rest-{kind}", *options)
    names = list(kinds)
    turn = number * 3 % len(names)
    measured = {}
    for name in names[turn:] + names[:turn]:
        os.sync()
        measured[name] = kinds[name]()
        say(name, measured[name])
    nothing = "nothing due"
    measured[nothing] = ways.module("core", interval="20h", dump=False)
    return {name: measured[name] for name in [*names, nothing]}


def verifications(ways: BackupWays) -> Round:
    measured = {"pg_verifybackup": ways.pg_verifybackup("plain")}
    for name in ("none", "zst"):
        if ways.place(f"rest-{name}").exists():
            measured[f"pgbackrest verify, {name}"] = ways.pgbackrest_verify(f"rest-{name}")
    for place, first, again in (("core", FIRST, AGAIN), ("core-zstd", FIRST_PACKED, AGAIN_PACKED)):
        ways.forget_readings(place)
        measured[first] = ways.verification(place)
        measured[again] = ways.verification(place)
    for name, found in measured.items():
        say(name, found)
    return measured


def say(name: str, measured: Measured) -> None:
    print(f"{name}: {measured.seconds:.2f} s", file=sys.stderr, flush=True)


def median(rounds: list[Round], name: str) -> float:
    return statistics.median(each[name].seconds for each in rounds)


def show_backups(rounds: list[Round], size: int) -> None:
    print("| way | seconds | MB/s | against pg_basebackup | on the disk MB |\n|---|---:|---:|---:|---:|")
    plain = median(rounds, PLAIN)
    for name, measured in rounds[0].items():
        seconds = median(rounds, name)
        print(
            f"| {name} | {seconds:.2f} | {size / MEGA / seconds:.0f} | {seconds / plain:.2f} | "
            f"{measured.bytes / MEGA:.0f} |"
        )
        for phase in (
            ("base", "content", "dump", "verify_base", "hash", "verify", "sync") if name != "nothing due" else ()
        ):
            if phase in measured.phases:
                spent = statistics.median(each[name].phases[phase] for each in rounds)
                print(f"| &nbsp; of it {phase} | {spent:.2f} | {size / MEGA / spent:.0f} | {spent / plain:.2f} | |")


def show_verifications(rounds: list[Round]) -> None:
    print("\n| verification | seconds | MB | MB/s | against pg_verifybackup | against the first time |")
    print("|---|---:|---:|---:|---:|---:|")
    plain = median(rounds, "pg_verifybackup")
    before = {AGAIN: FIRST, AGAIN_PACKED: FIRST_PACKED}
    for name in rounds[0]:
        seconds, megabytes = median(rounds, name), rounds[0][name].bytes / MEGA
        first = f"{seconds / median(rounds, before[name]):.3f}" if name in before else ""
        speed = f"{megabytes / seconds:.0f}" if not first else ""
        print(f"| {name} | {seconds:.3f} | {megabytes:.0f} | {speed} | {seconds / plain:.2f} | {first} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=8_000_000, help="8 millions are 2.25 GB")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bin-dir", type=Path, default=debian_bin_dir(15) or embedded_bin_dir())
    arguments = parser.parse_args()
    jobs = min(4, os.cpu_count() or 1)
    made: list[Round] = []
    verified: list[Round] = []
    with postgres_server({"shared_buffers": "256MB", "max_wal_size": "4GB"}, arguments.bin_dir) as server:
        size = fill(server, arguments.rows)
        for number in range(arguments.rounds):
            ways = BackupWays(server, Path(tempfile.mkdtemp(prefix="wellkept-bench-")), jobs)
            try:
                made.append(backups(ways, number))
                verified.append(verifications(ways))
            finally:
                ways.end()
        print(
            f"\n{size / MEGA:.0f} MB in PostgreSQL {server.major}, medians of {arguments.rounds} rounds, {jobs} jobs\n"
        )
    show_backups(made, size)
    show_verifications(verified)


if __name__ == "__main__":
    main()
