"""How fast WAL comes to a backup host: whole segments, one SSH connection each, from a real server through a real sshd.

    .venv/bin/python bench/wal_over_ssh.py [--segments 20] [--rounds 3]

Root alone can run it: it makes two accounts with an sshd each. The server keeps its segments back until all are there,
and then archives them one after the other: that is the pace at which it catches up.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "collections"), str(ROOT / "tests")]

from support.backup_host import BackupHost, backup_host  # noqa: E402
from support.waiting import wait_until  # noqa: E402

SEGMENT = 16 << 20


def archived(host: BackupHost) -> int:
    return int(host.sql("SELECT archived_count FROM pg_stat_archiver")[0][0])


def set_command(host: BackupHost, command: str) -> None:
    quoted = command.replace("'", "''")
    host.sql(f"ALTER SYSTEM SET archive_command = '{quoted}'")
    host.sql("SELECT pg_reload_conf()")


def one_round(host: BackupHost, segments: int) -> float:
    """Seconds a segment."""
    command = host.sql("SHOW archive_command")[0][0]
    wait_until(lambda: host.sql("SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name ~ 'ready$'")[0][0] == 0)
    set_command(host, "")
    for _number in range(segments):
        # Half of it can be compressed, as of WAL in general.
        host.sql(
            "SELECT sum(pg_logical_emit_message(false, 'bench', repeat(md5(g::text), 2) || repeat(' ', 8000)) - '0/0') "
            "FROM generate_series(1, 1500) g"
        )
        host.sql("SELECT pg_switch_wal()")
    before = archived(host)
    began = time.monotonic()
    set_command(host, command)
    wait_until(lambda: archived(host) >= before + segments, seconds=600)
    return (time.monotonic() - began) / (archived(host) - before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--segments", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wellkept-bench-") as at:
        Path(at).chmod(0o755)
        with backup_host(Path(at)) as host:
            shown = host.back_up()
            assert not shown["failed"], shown["msg"]
            found = [one_round(host, arguments.segments) for _ in range(arguments.rounds)]
    seconds = statistics.median(found)
    print(f"{arguments.segments} segments of 16 MiB, median of {arguments.rounds} rounds\n")
    print("| way | seconds a segment | MB/s |\n|---|---:|---:|")
    print(f"| archive_command to another host, over SSH | {seconds:.3f} | {SEGMENT / 1e6 / seconds:.0f} |")


if __name__ == "__main__":
    main()
