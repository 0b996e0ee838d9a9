# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A restore into place: made ready beside the old data directory, then exchanged for it by two renames.

Beside ``<data>`` lies ``<data>.wellkept-restore/`` while a restore goes on: the new files in ``data``, a private server
on them, and ``restore.json``, which says how far it has come. The old directory is never written to: it stays in place
until the new one is recovered, verified and on the disk, and is then renamed, never removed.
"""

from __future__ import annotations

import os
import shutil
import typing as t
from datetime import datetime, timezone

from ..backup.programs import sync_file_system
from ..errors import MaintenanceError
from ..files import read_json, sync_directory, write_json
from ..processes import run
from .scratch_directory import end_server_of

JOURNAL = "restore.json"
SUFFIX = ".wellkept-restore"
# Phases, in their order. Until "swapping" the old directory is in its place.
LAYING_DOWN, PAUSED, RECOVERED, SWAPPING, SWAPPED = "laying down", "paused", "recovered", "swapping", "swapped"
CONFIGURATION = ("postgresql.conf", "postgresql.auto.conf", "pg_hba.conf", "pg_ident.conf")


class Journal(t.NamedTuple):
    """How far a restore has come, and to what."""

    phase: str
    target: str
    label: str
    aside: str
    socket: str
    started: str
    timeline: str = ""


class Place:
    """The data directory *data* and what lies beside it."""

    def __init__(self, data: str) -> None:
        self.data = os.path.abspath(data)
        self.work = self.data + SUFFIX
        self.new = os.path.join(self.work, "data")
        self.lock = f"{self.work}.lock"

    def journal(self) -> Journal | None:
        try:
            found = read_json(os.path.join(self.work, JOURNAL))
            return Journal(**found) if found else None
        except (ValueError, TypeError, NotADirectoryError):
            return None

    def note(self, journal: Journal) -> Journal:
        write_json(os.path.join(self.work, JOURNAL), journal._asdict())
        return journal

    def begin(self, target: str, label: str) -> Journal:
        """A new working directory, after what an earlier restore left in it has gone."""
        self.clear()
        os.mkdir(self.work, 0o700)
        started = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        return self.note(Journal(LAYING_DOWN, target, label, f"{self.data}.before-restore-{started}", "", started))

    def clear(self) -> None:
        """Remove the working directory; never while it holds the only copy of what was in place."""
        if not os.path.lexists(self.work):
            return
        if not os.path.lexists(self.data) and os.path.lexists(self.new):
            found = self.journal()
            if found and found.phase == SWAPPING:
                raise MaintenanceError(
                    "begin a restore anew",
                    where=self.work,
                    expected="nothing in it that is needed",
                    observed="a restored cluster that was about to be put into place",
                    advice="Run the restore again with its own target.",
                )
        end_server_of(self.new)
        shutil.rmtree(self.work)

    def swap(self, journal: Journal) -> Journal:
        """Put the new directory into place and the old one aside; goes on where an earlier try was interrupted."""
        journal = self.note(journal._replace(phase=SWAPPING))
        if os.path.lexists(self.new):
            if os.path.lexists(self.data):
                os.rename(self.data, journal.aside)
                sync_directory(os.path.dirname(self.data))
            os.rename(self.new, self.data)
            sync_directory(os.path.dirname(self.data))
        return self.note(journal._replace(phase=SWAPPED))

    def words(self, journal: Journal) -> str:
        """What an interrupted restore left, and where everything is."""
        aside = os.path.lexists(journal.aside)
        where = f"the old data directory is aside in {journal.aside}" if aside else "the old data directory is in place"
        return f"a restore to {journal.target} from {journal.label} has come to '{journal.phase}'; {where}, intact"


def reason_running(data: str) -> str:
    """Why a server may be at work on *data*; empty when none is."""
    identity = _identity(data)
    if identity is None:
        return ""
    for process in os.listdir("/proc"):
        if process.isdigit() and _identity(f"/proc/{process}/cwd") == identity:
            name = os.path.basename(_read_link(f"/proc/{process}/exe")).split(" ")[0]
            if name in ("postgres", "postmaster"):
                return f"process {process} ({name}) works in it"
    pid = _first_line(os.path.join(data, "postmaster.pid"))
    if pid.isdigit() and os.path.exists(f"/proc/{pid}") and "postgres" in _read_link(f"/proc/{pid}/exe"):
        return f"postmaster.pid names process {pid}, which is a PostgreSQL server"
    return ""


def identifier_of(data: str, bin_dir: str) -> str:
    """The system identifier of the files in *data*; empty when they do not tell it any more."""
    try:
        said = run([os.path.join(bin_dir, "pg_controldata"), "-D", data], timeout=60).stdout
    except MaintenanceError:
        return ""
    if "WARNING" in said:
        return ""
    return next((line.split()[-1] for line in said.splitlines() if line.startswith("Database system identifier")), "")


def take_configuration(source: str, place: Place, saved_auto_conf: str) -> list[str]:
    """Give the new directory the configuration in *source* (the old one), or its own of the backup; returns names."""
    taken = []
    for name in CONFIGURATION:
        new = os.path.join(place.new, name)
        old = os.path.join(source, name) if source else ""
        if old and os.path.isfile(old) and not os.path.islink(old):
            status = os.stat(new if os.path.exists(new) else place.new)
            shutil.copyfile(old, new)
            os.chown(new, status.st_uid, status.st_gid)
            os.chmod(new, 0o600)
            taken.append(name)
    if not source:
        shutil.copyfile(saved_auto_conf, os.path.join(place.new, "postgresql.auto.conf"))
        taken = [name for name in CONFIGURATION if os.path.exists(os.path.join(place.new, name))]
    return taken


def announce_history(place: Place) -> None:
    """The private server archived nothing: let the real one archive the history of the new timeline first of all."""
    wal = os.path.join(place.new, "pg_wal")
    status = os.stat(wal)
    for name in os.listdir(wal):
        ready = os.path.join(wal, "archive_status", f"{name}.ready")
        if name.endswith(".history") and not os.path.exists(ready.replace(".ready", ".done")):
            with open(ready, "w", encoding="ascii"):
                os.chown(ready, status.st_uid, status.st_gid)


def make_durable(place: Place) -> None:
    """The private server did not sync what it wrote."""
    sync_file_system(place.work)


def refuse_place(place: Place) -> None:
    """Raise MaintenanceError where the data directory cannot be exchanged by renaming."""
    parent = os.path.dirname(place.data)
    reason = ""
    if not os.path.isdir(parent):
        reason = f"{parent} is not there"
    elif os.path.islink(place.data):
        reason = f"it is a link to {os.readlink(place.data)}"
    elif os.path.lexists(place.data) and not os.path.isdir(place.data):
        reason = "it is not a directory"
    elif os.path.isdir(place.data) and os.stat(place.data).st_dev != os.stat(parent).st_dev:
        reason = "it is a mount point"
    elif not os.access(parent, os.W_OK):
        reason = f"we may not write to {parent}"
    if reason:
        raise MaintenanceError(
            "restore into place",
            where=place.data,
            expected="a directory that can be renamed within its parent, on one file system",
            observed=reason,
            advice="Name the real directory as data_directory, and run as root. Where it is a mount point, restore to "
            "a directory below it and let the server's configuration name that.",
        )


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _read_link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _first_line(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.readline().strip()
    except OSError:
        return ""
