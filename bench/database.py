"""Vacuum and reindex by the modules against vacuumdb, reindexdb and pg_repack: on the same data, with users beside.

    make bench-database
    .venv/bin/python bench/database.py [--runs 5] [--bin-dir /usr/lib/postgresql/15/bin] [--scale 1] [--only stall]

Each run starts from the same snapshot of a stopped cluster with nothing of it in the page cache, and the ways take
turns. What is said afterwards about health comes from one set of queries, whoever did the work. With --directory the
snapshot is kept there for the next time.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "collections"), str(ROOT / "tests")]

from database_cluster import BenchCluster, Io  # noqa: E402
from database_health import Health, examine  # noqa: E402
from database_load import Latency, Load, Prober, Stall  # noqa: E402
from database_ways import Done, WayFailedError, Ways, see_to_its_end  # noqa: E402
from support.postgresql import embedded_bin_dir  # noqa: E402

MEGA = 1_000_000
DEBIAN = Path("/usr/lib/postgresql/15/bin")
BLOAT_LIMIT = 0.30


@dataclass
class Run:
    """One way, once."""

    done: Done
    wal: int
    io: Io
    latency: Latency | None = None
    health: Health | None = None
    again: list[Run] = field(default_factory=list)


@dataclass
class Bench:
    cluster: BenchCluster
    ways: Ways
    arguments: argparse.Namespace
    runs: dict[str, list[Run]] = field(default_factory=dict)
    stalls: dict[str, list[Stall]] = field(default_factory=dict)
    cached: list[int] = field(default_factory=list)
    failures: dict[str, list[str]] = field(default_factory=dict)

    @contextlib.contextmanager
    def restored(self) -> Iterator[None]:
        cached = self.cluster.restore()
        if cached is not None:
            self.cached.append(cached)
        self.ways.forget()
        try:
            yield
        finally:
            self.cluster.stop()

    def measure(
        self, name: str, start: Callable[[], subprocess.Popen[str]], *, tables: bool, repeat: bool = False
    ) -> None:
        """One run of one way; one that ends with an error is noted, and tried anew from the beginning."""
        for _attempt in range(3):
            try:
                run = self._measure(name, start, tables, repeat)
            except WayFailedError as error:
                self.failures.setdefault(name, []).append(str(error))
                say(f"{name} FAILED: {error}")
                continue
            self.runs.setdefault(name, []).append(run)
            say(f"{name}: {run.done.seconds:.2f} s, WAL {run.wal / MEGA:.1f} MB, {run.io}, {run.latency}, {run.health}")
            for again in run.again:
                say(f"{name} again: {again.done.seconds:.3f} s, {again.done.work:.3f} s of it work, WAL {again.wal} B")
            return
        raise AssertionError(f"{name} does not succeed: {self.failures[name][-1]}")

    def _measure(self, name: str, start: Callable[[], subprocess.Popen[str]], tables: bool, repeat: bool) -> Run:
        """Cold and with users beside it, then its health, then again with nobody else there."""
        with self.restored():
            if name == "pg_repack":
                self.ways.prepare_repack()
            load = Load(self.cluster.server, self.cluster.directory / "load", self.cluster.scale, self.arguments.rate)
            try:
                time.sleep(self.arguments.warm_up)
                run = self._timed(start, load.pids)
            finally:
                latency = load.end()
            run.latency = latency
            least = int(10 * MEGA * self.cluster.scale)
            run.health = examine(self.cluster, least, BLOAT_LIMIT, indexes=not tables, tables=tables)
            if repeat:
                run.again = [self._timed(start, []) for _repetition in range(self.arguments.repetitions)]
            return run

    def _timed(self, start: Callable[[], subprocess.Popen[str]], without: list[int]) -> Run:
        wal, io = self.cluster.wal(), self.cluster.io(without)
        began = time.monotonic()
        done = see_to_its_end(start(), began)
        after = self.cluster.io(without)
        return Run(done, self.cluster.wal() - wal, Io(after.read - io.read, after.written - io.written))

    def stall(self, name: str, start: Callable[[], subprocess.Popen[str]]) -> None:
        with self.restored():
            process = start()
            try:
                stall = Prober(self.cluster.server, "attempts", self.arguments.hold).watch(process)
            finally:
                process.kill()
            try:
                see_to_its_end(process, time.monotonic())
            except WayFailedError as error:
                stall.errors.append(f"{name}: {error}")
        self.stalls.setdefault(name, []).append(stall)
        say(f"{name} with an old snapshot: {stall}")

    def round(self) -> None:
        ways, only = self.ways, self.arguments.only
        if only in ("", "vacuum"):
            self.measure("vacuumdb", ways.vacuumdb, tables=True, repeat=True)
            self.measure("postgresql_vacuum", lambda: ways.module("postgresql_vacuum"), tables=True, repeat=True)
        if only in ("", "reindex"):
            self.measure("reindexdb", ways.reindexdb, tables=False)
            self.measure("postgresql_reindex", lambda: ways.module("postgresql_reindex"), tables=False, repeat=True)
            if ways.has_repack():
                self.measure("pg_repack", ways.repack, tables=False)
        if only in ("", "stall"):
            one = {"databases": ["learning"], "tables": ["public.attempts"]}
            self.stall("reindexdb", lambda: ways.reindexdb("-d", "learning", "-t", "public.attempts"))
            self.stall("postgresql_reindex", lambda: ways.module("postgresql_reindex", **one))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# -- what came out -----------------------------------------------------------------------------------------------------


def median(values: list[float]) -> float:
    return statistics.median(values)


def show(bench: Bench) -> None:
    facts, arguments = bench.cluster.facts, bench.arguments
    made = {len(each) for each in (*bench.runs.values(), *bench.stalls.values())}
    counts = " or ".join(str(count) for count in sorted(made))
    cold = f"at most {max(bench.cached) / MEGA:.1f} MB" if bench.cached else "an unknown part"
    print(
        f"PostgreSQL {bench.cluster.major}, {facts['bytes'] / MEGA:.0f} MB, {len(facts['fresh'])} indexes, "
        f"{counts} runs, medians; pgbench at {arguments.rate} transactions a second beside all first runs; "
        f"{cold} of the cluster's files was in the page cache before a run.\n"
    )
    if bench.runs:
        show_first(bench)
        show_again(bench)
    if bench.stalls:
        show_stalls(bench)


def show_first(bench: Bench) -> None:
    print(
        "| first run | seconds | WAL MB | read MB | written MB | worst query s | 99 % s | worst ALTER s | end health |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|---|")
    for name, runs in bench.runs.items():
        latencies = [run.latency for run in runs if run.latency]
        figures = (
            f"{median([run.done.seconds for run in runs]):.2f}",
            f"{median([run.wal / MEGA for run in runs]):.0f}",
            f"{median([run.io.read / MEGA for run in runs]):.0f}",
            f"{median([run.io.written / MEGA for run in runs]):.0f}",
            f"{median([each.worst for each in latencies]):.2f}",
            f"{median([each.p99 for each in latencies]):.3f}",
            f"{median([each.alter for each in latencies]):.2f}",
            words([run.health for run in runs if run.health]),
        )
        print(f"| {name} | {' | '.join(figures)} |")
    print()
    for ours, theirs in (
        ("postgresql_vacuum", "vacuumdb"),
        ("postgresql_reindex", "reindexdb"),
        ("postgresql_reindex", "pg_repack"),
    ):
        if ours in bench.runs and theirs in bench.runs:
            pairs = list(zip(bench.runs[ours], bench.runs[theirs], strict=False))
            seconds = median([mine.done.seconds / other.done.seconds for mine, other in pairs])
            wal = median([mine.wal / other.wal for mine, other in pairs])
            print(f"- {ours} took {seconds:.2f} of the time of {theirs}, and {wal:.3f} of its WAL.")
    for name, failures in bench.failures.items():
        print(f"- {name} ended with an error in {len(failures)} more runs, which are not counted: {first(failures)}")
    if "reindexdb" in bench.runs and "pg_repack" not in bench.runs:
        print("- pg_repack is not installed for this server: skipped.")
    print()


def show_again(bench: Bench) -> None:
    head("repeated run, nobody beside", "seconds", "of it work", "WAL bytes", "read MB", "changed")
    for name, runs in bench.runs.items():
        again = [each for run in runs for each in run.again]
        if again:
            changed = {run.done.changed for run in again}
            print(
                f"| {name} | {median([run.done.seconds for run in again]):.2f} "
                f"| {median([run.done.work for run in again]):.3f} | {median([run.wal for run in again]):.0f} "
                f"| {median([run.io.read / MEGA for run in again]):.1f} "
                f"| {', '.join('cannot tell' if each is None else str(each).lower() for each in changed)} |"
            )
    theirs, ours = bench.runs.get("vacuumdb"), bench.runs.get("postgresql_vacuum")
    if theirs and ours:
        pairs = [
            pair
            for mine, other in zip(ours, theirs, strict=False)
            for pair in zip(mine.again, other.again, strict=False)
        ]
        work = median([other.done.seconds / mine.done.work for mine, other in pairs])
        everything = median([other.done.seconds / mine.done.seconds for mine, other in pairs])
        print(
            f"\n- A repeated vacuumdb takes {work:.0f} times as long as the work of a repeated postgresql_vacuum, and "
            f"{everything:.1f} times as long as all of it: Python starts, and loads the module and the database driver."
        )
    print()


def show_stalls(bench: Bench) -> None:
    print(
        f"A rebuild of the indexes of one table, a snapshot kept for {bench.arguments.hold:g} s from its beginning, "
        "an ALTER of the table while the rebuild waits for it, and SELECTs behind the ALTER:\n"
    )
    head("", "ALTER waits s", "SELECT waits s", "worst of all runs s", "the whole s", "errors")
    for name, stalls in bench.stalls.items():
        figures = (
            f"{median([each.alter for each in stalls]):.2f}",
            f"{median([each.select for each in stalls]):.2f}",
            f"{max(max(each.alter, each.select) for each in stalls):.2f}",
            f"{median([each.seconds for each in stalls]):.1f}",
            f"in {sum(bool(each.errors) for each in stalls)} of {len(stalls)} runs",
        )
        print(f"| {name} | {' | '.join(figures)} |")


def head(*names: str) -> None:
    print(f"| {' | '.join(names)} |\n|---|{'---:|' * (len(names) - 2)}---|")


def first(failures: list[str]) -> str:
    """The line of the first failure that says what it was."""
    lines = [line for line in failures[0].splitlines() if "error" in line.lower()]
    return (lines or failures[0].splitlines())[0][:200]


def words(healths: list[Health]) -> str:
    """The worst of the healths that were seen, in words."""
    bad = [health for health in healths if not health.sound]
    seen = (bad or healths)[-1]
    parts = [f"{len(seen.bloated)} of {BLOAT_LIMIT:.0%} bloat or more"] if seen.bloated else []
    parts += [f"{len(seen.due)} tables due"] if seen.due else []
    parts += [f"{len(seen.invalid)} invalid"] if seen.invalid else []
    return f"{len(bad)} of {len(healths)} runs: {', '.join(parts)}" if bad else "sound"


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--repetitions", type=int, default=3, help="of a way after its first run")
    parser.add_argument("--scale", type=float, default=1.0, help="of the data; 1 is about 2.8 GB")
    parser.add_argument("--bin-dir", type=Path, default=DEBIAN if DEBIAN.exists() else embedded_bin_dir())
    parser.add_argument("--directory", type=Path, help="where to work, and to keep the snapshot for the next time")
    parser.add_argument(
        "--warm", action="store_true", help="leave the cache and the disk alone: a trial, no measurement"
    )
    parser.add_argument("--rate", type=int, default=60, help="transactions a second of the load")
    parser.add_argument("--warm-up", type=float, default=2.0, help="seconds that the load runs alone")
    parser.add_argument("--hold", type=float, default=12.0, help="seconds that the old snapshot is kept")
    parser.add_argument("--only", choices=["", "vacuum", "reindex", "stall"], default="")
    return parser.parse_args(argv)


def main(argv: list[str]) -> Bench:
    arguments = parse(argv)
    # Stopped in either way, it shows what it has, and leaves no server behind.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    directory = arguments.directory or Path(tempfile.mkdtemp(prefix="wellkept-bench-"))
    cluster = BenchCluster(directory, arguments.bin_dir, arguments.scale, arguments.warm)
    try:
        free, needed = shutil.disk_usage(directory).free, int(12e9 * arguments.scale)
        assert free > needed, f"{free / MEGA:.0f} MB free in {directory}, {needed / MEGA:.0f} MB are needed"
        cluster.build()
        bench = Bench(cluster, Ways(cluster.server, directory, options(arguments.scale)), arguments)
        try:
            for number in range(arguments.runs):
                say(f"Run {number + 1} of {arguments.runs}, load {os.getloadavg()[0]:.1f}")
                bench.round()
        except KeyboardInterrupt:
            say("Stopped: this is what has been measured.")
        show(bench)
        return bench
    finally:
        cluster.stop()
        if arguments.directory is None:
            shutil.rmtree(directory, ignore_errors=True)


def options(scale: float) -> dict[str, dict[str, object]]:
    """What the modules are given besides their login: nothing, but on smaller data a gain that is smaller, too."""
    return {"postgresql_reindex": {"min_gain": str(int(3 * MEGA * scale))}} if scale < 1 else {}


if __name__ == "__main__":
    main(sys.argv[1:])
