"""Users beside the maintenance: a steady load by pgbench, and a prober who meets a rebuild at its worst moment."""

from __future__ import annotations

import itertools
import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import database_data
import psycopg
from support.postgresql import PostgresServer

# What pgbench chooses from, by weight: two reads and a write; DDL that is quick but wants the table for itself; and
# a snapshot that somebody keeps for a while.
QUERIES = """\\set student random(1, {students})
\\set account random(1, {accounts})
SELECT code FROM students WHERE id = :student;
SELECT amount FROM enrolments WHERE id = :student;
UPDATE accounts SET balance = balance + 1 WHERE id = :account;
"""
ALTER = "ALTER TABLE {table} ALTER COLUMN note SET DEFAULT '';\n"
SNAPSHOT = "BEGIN ISOLATION LEVEL REPEATABLE READ;\nSELECT count(*) FROM accounts;\n\\sleep {seconds} s\nCOMMIT;\n"
# Of 600 transactions, so many: at 60 a second a snapshot about every 10 s and an ALTER about every 5 s. What is altered
# is small, so that its indexes are rebuilt in no time; how an ALTER meets a long rebuild is looked at apart (Prober).
WEIGHTS = {"queries": 597, "snapshot": 1, "alter": 2}


class Latency(NamedTuple):
    """Seconds: the worst and the 99th percentile of queries, and the worst of the ALTERs."""

    worst: float
    p99: float
    alter: float
    transactions: int


class Load:
    """pgbench, limited to *rate* transactions a second, from `with` to `end()`."""

    def __init__(self, server: PostgresServer, directory: Path, scale: float, rate: int, clients: int = 8) -> None:
        self.server = server
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        for old in directory.glob("log.*"):
            old.unlink()
        students = next(database_data.rows(table, scale) for table in database_data.TABLES if table.name == "students")
        scripts = {
            "queries": QUERIES.format(students=students, accounts=database_data.BUSY_ACCOUNTS),
            "snapshot": SNAPSHOT.format(seconds=2),
            "alter": ALTER.format(table="accounts"),
        }
        self.scripts = list(scripts)
        command = [str(server.bin_dir / "pgbench"), "--no-vacuum", f"--client={clients}", "--jobs=1", "--time=36000"]
        command += [f"--rate={rate}", "--random-seed=1", "--log", f"--log-prefix={directory}/log"]
        for name, text in scripts.items():
            (directory / f"{name}.sql").write_text(text)
            command.append(f"--file={directory}/{name}.sql@{WEIGHTS[name]}")
        self.process = subprocess.Popen(
            [*command, "learning"],
            env={**os.environ, "PGHOST": str(server.socket_dir), "PGPORT": str(server.port), "PGUSER": "postgres"},
            stdout=subprocess.DEVNULL,
            stderr=(directory / "errors").open("w"),
        )
        try:
            self.pids = self._wait_for(clients)
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise

    def _wait_for(self, clients: int) -> list[int]:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            found = self.server.sql("SELECT pid FROM pg_stat_activity WHERE application_name = 'pgbench'")
            if len(found) == clients:
                return [pid for (pid,) in found]
            time.sleep(0.1)
        raise AssertionError(f"pgbench did not start: {(self.directory / 'errors').read_text()}")

    def end(self) -> Latency:
        """Stop it and say what it saw. Its sessions are ended, as pgbench itself writes its log only then."""
        early = self.process.poll()
        self.server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgbench'")
        try:
            self.process.wait(60)
        finally:
            self.process.kill()
            self.process.wait()
        assert early is None, f"pgbench ended early: {(self.directory / 'errors').read_text()}"
        lines = itertools.chain.from_iterable(path.read_text().splitlines() for path in self.directory.glob("log.*"))
        fields = [line.split() for line in lines]
        seconds = [(self.scripts[int(each[3])], int(each[2]) / 1e6) for each in fields if each[2].isdigit()]
        queries = sorted(taken for name, taken in seconds if name == "queries")
        assert queries, "pgbench carried out no transaction"
        alters = [taken for name, taken in seconds if name == "alter"]
        return Latency(queries[-1], queries[int(len(queries) * 0.99)], max(alters, default=0.0), len(seconds))


class Stall(NamedTuple):
    """Seconds that the ALTER and the SELECT behind it had to wait at worst, and that the whole took."""

    alter: float
    select: float
    seconds: float
    # How often a rebuild was met waiting for the snapshot.
    met: int
    # What users, or whoever rebuilt, were told instead of being served.
    errors: list[str]


WORKING = """
    SELECT phase FROM pg_stat_progress_create_index WHERE relid = 'public.{table}'::regclass AND datname = 'learning'
"""


class Prober:
    """While *process* rebuilds indexes of *table*, somebody keeps an old snapshot for *hold* seconds, somebody else
    wants to ALTER the table as soon as the rebuild waits for that snapshot, and users read behind the ALTER."""

    def __init__(self, server: PostgresServer, table: str, hold: float) -> None:
        self.server = server
        self.table = table
        self.hold = hold
        self.alters: list[float] = []
        self.selects: list[float] = []
        self.errors: list[str] = []
        self.threads: list[threading.Thread] = []

    def watch(self, process: subprocess.Popen[str], timeout: float = 600) -> Stall:
        """See *process* to its end."""
        began = time.monotonic()
        working = WORKING.format(table=self.table).encode()
        holder = meeting = None
        with self.server.connect("learning") as monitor:
            while process.poll() is None:
                assert time.monotonic() - began < timeout, f"still at work after {timeout:.0f} s"
                phases = [phase for (phase,) in monitor.execute(working).fetchall()]
                if holder is None and any(phase.startswith("building index") for phase in phases):
                    holder = self._run(self._hold, process)
                waiting = any(phase.startswith("waiting for old") for phase in phases)
                if waiting and _alive(holder) and not _alive(meeting):
                    meeting = self._run(self._meet)
                time.sleep(0.005)
        seconds = time.monotonic() - began
        for thread in self.threads:
            thread.join()
        worst = (max(self.alters, default=0.0), max(self.selects, default=0.0))
        return Stall(*worst, seconds, len(self.alters), self.errors)

    def _run(self, work: Callable[..., None], *arguments: Any) -> threading.Thread:
        thread = threading.Thread(target=work, args=arguments)
        self.threads.append(thread)
        thread.start()
        return thread

    def _hold(self, process: subprocess.Popen[str]) -> None:
        until = time.monotonic() + self.hold
        with self.server.connect("learning") as connection:
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            connection.execute("SELECT count(*) FROM accounts")
            while time.monotonic() < until and process.poll() is None:
                time.sleep(0.05)

    def _meet(self) -> None:
        """One ALTER, and a few reads behind it.

        A few: the rebuild waits for each of them in turn, in a deadlock that the server ends after a second each.
        """
        altering = self._run(self._time, ALTER.format(table=self.table), self.alters)
        for _read in range(3):
            altering.join(0.1)
            if not altering.is_alive():
                return
            self._run(self._time, f"SELECT 1 FROM {self.table} LIMIT 1", self.selects)
        altering.join()

    def _time(self, statement: str, into: list[float]) -> None:
        with self.server.connect("learning") as connection:
            began = time.monotonic()
            try:
                connection.execute(statement.encode())
            except psycopg.Error as error:
                self.errors.append(str(error).splitlines()[0])
            into.append(time.monotonic() - began)


def _alive(thread: threading.Thread | None) -> bool:
    return thread is not None and thread.is_alive()
