# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What every engine saves at the consistent point: dumps, fingerprints of all tables, and what the stores hold."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import typing as t
from concurrent.futures import ThreadPoolExecutor

from .. import fingerprint
from ..catalog import record as catalog_record
from ..errors import MaintenanceError, UnavailableError
from .consistent_point import Point, Session, consistent_point, plain_point
from .dump import DumpBlockedError, dump_database, dump_globals
from .engine import Order
from .programs import Written
from .repository import Repository
from .stores.store import Making, Saved, Store

# How many points to try when statements that change tables come in between.
_POINTS = 4
# Dumps at a time.
_DUMPS = 4


class PointContent:
    """The part of a backup in the making that is taken at its consistent point.

    After :meth:`take`, ``point`` is the point; :meth:`metadata` and ``written`` are for ``backup.json``.
    """

    def __init__(
        self,
        params: t.Mapping[str, t.Any],
        order: Order,
        *,
        bin_dir: str,
        label: str,
        directory: str,
        repository: Repository,
    ) -> None:
        self.params = params
        self.order = order
        self.bin_dir = bin_dir
        self.label = label
        self.directory = directory
        self.repository = repository
        self.seconds: dict[str, float] = {}
        self.point: Point | None = None
        # Files in the backup as they were written, by their paths in it.
        self.written: dict[str, Written] = {}
        self._metadata: dict[str, t.Any] = {}
        self._saved: dict[str, Saved] = {}
        self._lacks: dict[str, str] = {}
        self._makings: list[Making] = []

    def take(self, names: list[str], environment: dict[str, str]) -> None:
        """Take the content of the databases *names* and of the stores.

        Try again at another point when a statement got in the dump's way; in the end do without the comparison.
        """
        for attempt in range(1, _POINTS + 1):
            prefix = f"{self.label}_{attempt}"
            try:
                with consistent_point(self.params, names, prefix, max_block=self.order.max_block) as point:
                    self._take_at(point, names, environment)
                return
            except DumpBlockedError as error:
                self._forget()
                missed = point._replace(
                    reason=f"tables are altered, truncated or dropped all the time: {error.observed}"
                )
        self._take_at(plain_point(self.params, self.label, missed), names, environment)

    def metadata(self) -> dict[str, t.Any]:
        """What ``backup.json`` says of it."""
        application_files = [entry for saved in self._saved.values() for entry in saved.application_files]
        stores = {name: saved.facts for name, saved in self._saved.items()}
        not_whole = {name: saved.lacking for name, saved in self._saved.items() if saved.lacking}
        lacks = {**self.order.lacks, **self._lacks, **not_whole}
        return {**self._metadata, "application_files": application_files, "stores": stores, "lacks": lacks}

    def abandon(self) -> None:
        """Take back what the stores did outside of the backup, which does not come about."""
        while self._makings:
            making = self._makings.pop()
            for store in self.order.stores:
                # What cannot be taken back now is found, and told, by the next verification.
                with contextlib.suppress(MaintenanceError, OSError):
                    store.abandon(making)

    def _take_at(self, point: Point, names: list[str], environment: dict[str, str]) -> None:
        self.point = point
        self._metadata = {
            "restore_point": {"name": point.name, "lsn": point.lsn, "time": point.time},
            "databases": {},
        }
        with self._timed("content"):
            self._record(point, names, environment)

    def _forget(self) -> None:
        """Begin again at another point."""
        self.abandon()
        for part in ("dump", *(store.name for store in self.order.stores)):
            shutil.rmtree(self._path(part), ignore_errors=True)
        for path in self.written:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path(path))
        self.written.clear()
        self._saved.clear()
        self._lacks.clear()

    def _record(self, point: Point, names: list[str], environment: dict[str, str]) -> None:
        sessions = {session.database: session for session in point.sessions if not point.reason}
        making = Making(self.label, self.repository, self.directory, point, self.repository.backups())
        self._makings.append(making)
        with ThreadPoolExecutor(1 + _DUMPS) as pool:
            others = [pool.submit(self._save, making)]
            if self.order.dump:
                os.mkdir(self._path("dump"), 0o700)
                began = time.monotonic()
                # All at once: while one dump waited for another, statements that change tables could get in its way.
                others += [
                    pool.submit(self._dump, number, name, sessions.get(name), environment)
                    for number, name in enumerate(names)
                ]
                others.append(pool.submit(self._dump_globals, environment))
            if sessions:
                written = catalog_record.write(self._path(catalog_record.FILE), self.params, list(sessions.values()))
                self.written[catalog_record.FILE] = Written(**written)
            self._metadata["fingerprints"] = {
                name: fingerprint.fingerprint(session.reader, session.tables) for name, session in sessions.items()
            }
            for other in others:
                other.result()
            if self.order.dump:
                self.seconds["dump"] = time.monotonic() - began
        self._metadata["not_compared"] = _not_compared(sessions, names, point.reason)

    def _save(self, making: Making) -> None:
        """Let each store save what it is for, one after the other."""
        for store in self.order.stores:
            try:
                with self._timed(store.name):
                    self._saved[store.name] = store.create(making)
            except UnavailableError as error:
                self._do_without(store, making, error)
                continue
            self.written.update(self._saved[store.name].written)

    def _do_without(self, store: Store, making: Making, error: UnavailableError) -> None:
        """What cannot be had costs the databases nothing: their backup is made, and says what it lacks."""
        self._lacks[store.name] = error.in_short()
        with contextlib.suppress(MaintenanceError, OSError):
            store.abandon(making)
        shutil.rmtree(self._path(store.name), ignore_errors=True)

    def _dump(self, number: int, name: str, session: Session | None, environment: dict[str, str]) -> None:
        path = f"dump/{number}.dump"
        self.written[path] = dump_database(self.bin_dir, self._path(path), name, session, environment)
        self._metadata["databases"][name] = {"file": path, **self.written[path]._asdict()}

    def _dump_globals(self, environment: dict[str, str]) -> None:
        path = "dump/globals.sql"
        self.written[path] = dump_globals(self.bin_dir, self._path(path), self.params["login_db"], environment)

    @contextlib.contextmanager
    def _timed(self, phase: str) -> t.Iterator[None]:
        began = time.monotonic()
        yield
        self.seconds[phase] = time.monotonic() - began

    def _path(self, *parts: str) -> str:
        return os.path.join(self.directory, *parts)


def _not_compared(sessions: dict[str, Session], names: list[str], reason: str) -> list[dict[str, str]]:
    """Tables at which a restore test cannot compare content, each with its database and the reason."""
    if reason:
        return [{"database": name, "table": "*", "reason": reason} for name in names]
    return [{"database": name, **entry} for name, session in sessions.items() for entry in session.not_compared]
