"""A standby of a test's server."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator

from .postgresql import PostgresServer
from .waiting import wait_until


@contextlib.contextmanager
def standby_of(primary: PostgresServer, slot: str = "", **settings: str) -> Iterator[PostgresServer]:
    """A new standby, with *settings*, that streams from *primary* while the block runs, through a new *slot* if named.

    The slot outlives the block.
    """
    standby = PostgresServer(primary.directory / f"standby{slot}", primary.bin_dir, settings)
    standby.directory.mkdir(mode=0o700)
    try:
        if os.geteuid() == 0:
            shutil.chown(standby.directory, primary.data.stat().st_uid, primary.data.stat().st_gid)
        options = ["-h", str(primary.socket_dir), "-p", str(primary.port), "-U", "postgres", "-R", "-c", "fast"]
        options += ["-C", "-S", slot] if slot else []
        primary.program("pg_basebackup", "-D", str(standby.data), *options)
        with (standby.data / "postgresql.conf").open("a") as stream:
            stream.writelines(f"{name} = '{value}'\n" for name, value in standby.settings.items())
        standby.start()
        wait_until(lambda: primary.sql("SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'"))
        yield standby
    finally:
        standby.stop()
        shutil.rmtree(standby.directory, ignore_errors=True)
