"""A standby of a test's server."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator

from .database import wait_for
from .postgresql import PostgresServer


@contextlib.contextmanager
def standby_of(primary: PostgresServer) -> Iterator[PostgresServer]:
    """A new standby that streams from *primary* while the block runs."""
    standby = PostgresServer(primary.directory / "standby", primary.bin_dir)
    standby.directory.mkdir()
    try:
        if os.geteuid() == 0:
            shutil.chown(standby.directory, primary.data.stat().st_uid, primary.data.stat().st_gid)
        source = ["-h", str(primary.socket_dir), "-p", str(primary.port), "-U", "postgres"]
        primary.program("pg_basebackup", "-D", str(standby.data), "-R", "-c", "fast", *source)
        with (standby.data / "postgresql.conf").open("a") as stream:
            stream.write(f"port = {standby.port}\nunix_socket_directories = '{standby.directory}'\n")
        standby.start()
        assert wait_for(lambda: primary.sql("SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'"))
        yield standby
    finally:
        standby.stop()
        shutil.rmtree(standby.directory, ignore_errors=True)
