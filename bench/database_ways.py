"""The ways to do the same maintenance that `bench/database.py` compares: the modules, and what is commonly used."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from database_data import DATABASES, TABLES
from support.modules import COLLECTIONS
from support.postgresql import PostgresServer

# As support.modules does, but with a clock that starts when Python and the libraries are loaded.
_STARTER = """
import importlib, psycopg, psycopg.sql, sys, time
from ansible.module_utils import basic
basic._ANSIBLE_ARGS = sys.stdin.buffer.read()
basic._ANSIBLE_PROFILE = "legacy"
module = importlib.import_module("ansible_collections.wellkept.maintenance.plugins.modules." + sys.argv[1])
began = time.monotonic()
try:
    module.main()
finally:
    sys.stderr.write(f"seconds {time.monotonic() - began}")
"""


@dataclass
class Done:
    """One way carried out: all seconds, and those of the work alone where we can tell."""

    seconds: float
    work: float
    changed: bool | None = None
    shown: dict[str, Any] | None = None


Start = Callable[[], "subprocess.Popen[str]"]


class Ways:
    """What can be started on *server*; the modules keep their state in *directory*."""

    def __init__(self, server: PostgresServer, directory: Path, options: dict[str, dict[str, Any]]) -> None:
        self.server = server
        self.directory = directory
        self.options = options

    # -- the modules ---------------------------------------------------------------------------------------------------

    def module(self, name: str, **options: Any) -> subprocess.Popen[str]:
        arguments = {
            **self.server.login(),
            "state_dir": str(self.directory / "state"),
            **self.options.get(name, {}),
            **options,
            "_ansible_remote_tmp": "/tmp",
            "_ansible_version": "2.19",
        }
        process = subprocess.Popen(
            [sys.executable, "-c", _STARTER, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(COLLECTIONS)},
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": arguments}))
        process.stdin.close()
        process.stdin = None
        return process

    def forget(self) -> None:
        """As if the modules had never run here."""
        shutil.rmtree(self.directory / "state", ignore_errors=True)

    # -- the others ----------------------------------------------------------------------------------------------------

    def program(self, name: str, *arguments: str) -> subprocess.Popen[str]:
        environment = {
            **os.environ,
            "PGHOST": str(self.server.socket_dir),
            "PGPORT": str(self.server.port),
            "PGUSER": "postgres",
        }
        return subprocess.Popen(
            [str(self.server.bin_dir / name), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def vacuumdb(self) -> subprocess.Popen[str]:
        return self.program("vacuumdb", "-a", "-z", "-j2", "--quiet")

    def reindexdb(self, *more: str) -> subprocess.Popen[str]:
        return self.program("reindexdb", *(more or ("-a",)), "--concurrently", "-j2", "--quiet")

    def has_repack(self) -> bool:
        return (self.server.bin_dir / "pg_repack").exists()

    def prepare_repack(self) -> None:
        for database in DATABASES:
            self.server.sql("CREATE EXTENSION IF NOT EXISTS pg_repack", database)

    def repack(self) -> subprocess.Popen[str]:
        """The indexes of all tables: it wants their names, and one database after the other."""
        steps = []
        for database in DATABASES:
            names = [
                f"{each.name}_{number}" if each.partitions else each.name
                for each in TABLES
                if each.database == database
                for number in range(max(1, each.partitions))
            ]
            tables = " ".join(f"-t public.{name}" for name in names)
            steps.append(f"{self.server.bin_dir}/pg_repack -d {database} --only-indexes -j 2 {tables}")
        environment = {
            **os.environ,
            "PGHOST": str(self.server.socket_dir),
            "PGPORT": str(self.server.port),
            "PGUSER": "postgres",
        }
        return subprocess.Popen(
            ["/bin/sh", "-c", " && ".join(steps)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )


class WayFailedError(Exception):
    """It ended with an error; the message is its own."""


def see_to_its_end(process: subprocess.Popen[str], began: float, timeout: float = 3600) -> Done:
    """What *process* took and said; fails with its words."""
    try:
        output, errors = process.communicate(timeout=timeout)
    finally:
        process.kill()
        process.wait()
    seconds = time.monotonic() - began
    if "seconds " in errors and output.lstrip().startswith("{"):
        shown = json.loads(output)
        if shown.get("failed"):
            raise WayFailedError(shown.get("msg"))
        return Done(seconds, float(errors.rpartition("seconds ")[2].split()[0]), shown["changed"], shown)
    if process.returncode != 0:
        raise WayFailedError(f"{process.args!r}: {errors[-2000:] or output[-2000:]}")
    return Done(seconds, seconds)
