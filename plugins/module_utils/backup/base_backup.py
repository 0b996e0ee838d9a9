# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The base of a backup by the core engine: taken by pg_basebackup, and read again by pg_verifybackup beside other work.

It is kept as a directory, or compressed in archives: see ``packed``.
"""

from __future__ import annotations

import os
import re
import subprocess
import typing as t

from ..errors import MaintenanceError
from ..files import read_json
from ..postgresql import value
from .contents import BASE_MANIFEST
from .engine import IncrementalRefusedError, Order
from .packed.checking import ArchivesCheck
from .packed.compression import Compression, parse_compression
from .packed.packing import Packed
from .packed.taking import Sending, take_packed
from .programs import Written, guarded, run_program
from .reading import base_command, base_problems
from .repository import Backup

# pg_basebackup's and the server's words when they cannot build on the parent.
_INCREMENTAL_REFUSED = re.compile(r"incremental|WAL summar|summarize_wal|summarization|manifest (system|contains|time)")
# Ones inside of the data directory, which alone are backed up.
_TABLESPACES = "SELECT count(*) FROM pg_catalog.pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global')"
_CHECK_SCRATCH = ".check"


class Check(t.Protocol):
    """A reading of the base that goes on beside other work."""

    def problems(self) -> list[str]:
        """What is wrong with the base, at its end."""

    def stop(self) -> None:
        """End it, and leave nothing of it."""


class BaseBackup:
    """The base of the backup that is made in *directory* by *order*."""

    def __init__(self, bin_dir: str, directory: str, label: str, order: Order, parent: Backup | None) -> None:
        self.bin_dir = bin_dir
        self.directory = directory
        self.label = label
        self.order = order
        self.parent = parent
        self.compression: Compression | None = parse_compression(order.compression)
        self.packed: Packed | None = None

    def take(self, connection: t.Any, environment: t.Mapping[str, str]) -> None:
        """Bring it; raises IncrementalRefusedError when it cannot build on its parent."""
        try:
            self._take(connection, {**environment, "PGAPPNAME": f"wellkept_{self.label}"})
        except MaintenanceError as error:
            if self.parent and _INCREMENTAL_REFUSED.search(error.observed):
                raise IncrementalRefusedError(
                    error.what, expected=error.expected, observed=error.observed, advice=error.advice
                ) from None
            raise

    def _take(self, connection: t.Any, environment: t.Mapping[str, str]) -> None:
        # No slot: one that a killed run left would fill the server's disk. The WAL comes by the receiver.
        command = [
            os.path.join(self.bin_dir, "pg_basebackup"), "--checkpoint=fast", "--wal-method=none", "--no-slot",
            "--no-sync", "--no-password", f"--label=wellkept {self.label}",
            f"--manifest-checksums={self.order.manifest_checksums}",
        ]  # fmt: skip
        if self.parent:
            command.append(f"--incremental={self.parent.path(BASE_MANIFEST)}")
        what = f"take the {self.order.type} base backup"
        if self.compression is None:
            command.append(f"--pgdata={os.path.join(self.directory, 'base')}")
            run_program(command, environment, self.order.timeout, what)
            return
        self.packed = take_packed(
            Sending(command, environment, self.order.timeout, what),
            self.directory,
            self.compression,
            self.order.jobs,
            tablespaces=value(connection, _TABLESPACES) > 0,
        )

    def last_wal_range(self) -> dict[str, t.Any]:
        """The WAL that it needs, on the last timeline: ``Timeline``, ``Start-LSN`` and ``End-LSN``."""
        last: dict[str, t.Any] = read_json(os.path.join(self.directory, BASE_MANIFEST))["WAL-Ranges"][-1]
        return last

    @property
    def written(self) -> dict[str, Written]:
        """Files that were hashed on their way to the disk."""
        return {archive.path: archive.written for archive in self.packed.archives} if self.packed else {}

    def metadata(self) -> dict[str, t.Any]:
        """What a restore must know to unpack it."""
        if not self.packed or not self.compression:
            return {}
        archives = [{"path": a.path, "files": len(a.members), "bytes": a.bytes} for a in self.packed.archives]
        packed = {
            "compression": self.compression.name,
            "level": self.compression.level,
            "archives": archives,
            "bytes": sum(archive.bytes for archive in self.packed.archives),
            "directories": self.packed.directories,
            "directory_mode": self.packed.directory_mode,
        }
        return {"packed": packed}

    def start_check(self) -> Check:
        """Begin to read what was written, against the manifest."""
        if self.packed:
            scratch = os.path.join(self.directory, _CHECK_SCRATCH)
            return ArchivesCheck(self.directory, self.metadata(), self.bin_dir, scratch, self.order.jobs)
        return _DirectoryCheck(self.bin_dir, os.path.join(self.directory, "base"))


class _DirectoryCheck:
    """pg_verifybackup on a base that is a directory."""

    def __init__(self, bin_dir: str, base: str) -> None:
        self._process = subprocess.Popen(
            guarded(base_command(bin_dir, base)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, "LC_ALL": "C"},
        )

    def problems(self) -> list[str]:
        said, _nothing = self._process.communicate()
        return base_problems(self._process.returncode, said)

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()
