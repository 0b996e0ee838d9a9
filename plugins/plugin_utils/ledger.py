# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The append-only store of runs and results: SQLite by default, PostgreSQL by a URL.

Every call opens a connection, commits, and closes it: a connection must not live on into the worker processes that
Ansible forks, and what a call has written survives the death of the controller.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.wellkept.maintenance.plugins.module_utils.result import GOOD_OUTCOMES, OUTCOMES

from . import clock, ledger_schema
from .controller import is_dead
from .identifiers import new_id
from .ledger_schema import parts, results, run_endings, runs, schema_versions

DEFAULT_PATH = ".wellkept/ledger.db"
ENVIRONMENT = "WELLKEPT_LEDGER"
_LOCK_KEY = 7_305_220_411  # any number, as long as every Wellkept uses the same one
_BUSY_SECONDS = 10


def ledger_url(configured: str = "") -> str:
    """Where the ledger is: the environment's WELLKEPT_LEDGER, else *configured* (inventory), else .wellkept/ledger.db.

    A path without a scheme is an SQLite file. Raises MaintenanceError when *configured* holds a password: inventory
    variables are shown and logged in too many places.
    """
    chosen = os.environ.get(ENVIRONMENT, "") or configured or DEFAULT_PATH
    if "://" not in chosen:
        return f"sqlite:///{Path(chosen).expanduser().absolute()}"
    if sa.make_url(chosen).password and not os.environ.get(ENVIRONMENT):
        raise MaintenanceError(
            "read where the ledger is",
            where="inventory variable maintenance_ledger",
            expected="a URL without a password",
            observed="a URL with one",
            advice=f"Set the URL in the environment as {ENVIRONMENT}, or leave the password to ~/.pgpass.",
        )
    return chosen


class Ledger:
    """The ledger at *url*; opening it makes or migrates its tables.

    Every method raises MaintenanceError when the ledger cannot be read or written.
    """

    def __init__(self, url: str, *, busy_seconds: float = _BUSY_SECONDS) -> None:
        self.url = sa.make_url(url)
        self.shown_url = self.url.render_as_string(hide_password=True)
        if self._is_sqlite:
            _make_private_file(Path(self.url.database or ""))
        arguments = {"timeout": busy_seconds} if self._is_sqlite else {"connect_timeout": 10}
        self._engine = sa.create_engine(self.url, poolclass=sa.NullPool, connect_args=arguments)
        if self._is_sqlite:
            sa.event.listen(self._engine, "connect", _prepare_sqlite)
        self._bring_up_to_date()

    @property
    def _is_sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.connect() as connection:
                if self._is_sqlite:
                    connection.exec_driver_sql("BEGIN IMMEDIATE")
                yield connection
                connection.commit()
        except sa.exc.SQLAlchemyError as error:
            raise self._trouble(error) from None

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.connect() as connection:
                yield connection
        except sa.exc.SQLAlchemyError as error:
            raise self._trouble(error) from None

    def _trouble(self, error: Exception) -> MaintenanceError:
        words = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        return MaintenanceError(
            "use the ledger",
            where=self.shown_url,
            expected="a database that can be read and written",
            observed=words,
            advice=_advice_for(words),
        )

    def _bring_up_to_date(self) -> None:
        current = 1 + len(ledger_schema.MIGRATIONS)
        if self._version() == current:
            return
        with self._transaction() as connection:
            if not self._is_sqlite:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK_KEY)))
            version = self._version(connection)
            if version > current:
                raise MaintenanceError(
                    "open the ledger",
                    where=self.shown_url,
                    expected=f"schema version {current} or older",
                    observed=f"version {version}, made by a newer Wellkept",
                    advice="Upgrade this control node, or use another ledger.",
                )
            if version == 0:
                ledger_schema.create(connection)
                version = current
                self._note_version(connection, version)
            for step in ledger_schema.MIGRATIONS[version - 1 :]:
                step(connection)
                version += 1
                self._note_version(connection, version)

    def _note_version(self, connection: sa.Connection, version: int) -> None:
        connection.execute(schema_versions.insert().values(version=version, applied=clock.to_text(clock.now())))

    def _version(self, connection: sa.Connection | None = None) -> int:
        if connection is None:
            with self._reading() as reading:
                return self._version(reading)
        if not sa.inspect(connection).has_table(schema_versions.name):
            return 0
        return connection.execute(sa.select(sa.func.max(schema_versions.c.version))).scalar() or 0

    # Writing

    def open_run(
        self, run: dict[str, Any], admit: Callable[[list[dict[str, Any]]], None] = lambda _others: None
    ) -> None:
        """Record that *run* (keys ``id``, ``started``, ``controller``, ``due`` and more) begins.

        *admit* sees the other open runs and raises to refuse; nobody can open a run between its look and our entry.
        """
        with self._transaction() as connection:
            if not self._is_sqlite:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK_KEY)))
            admit(self._select_runs(connection, run_endings.c.run_id.is_(None)))
            connection.execute(runs.insert().values(id=run["id"], started=run["started"], document=run))

    def end_run(self, run_id: str, state: str, verdict: str, detail: str = "") -> None:
        """Record the end of a run, once: *state* is ``closed`` or ``interrupted``; a second ending is ignored."""
        with self._transaction() as connection:
            known = connection.execute(sa.select(run_endings.c.run_id).where(run_endings.c.run_id == run_id)).first()
            if known is None:
                ended = clock.to_text(clock.now())
                values = {"run_id": run_id, "ended": ended, "state": state, "verdict": verdict, "detail": detail}
                connection.execute(run_endings.insert().values(values))

    def settle_dead_runs(self) -> list[dict[str, Any]]:
        """Give every run whose controller died its ending, and return those runs."""
        dead = [run for run in self.open_runs() if is_dead(run["controller"])]
        for run in dead:
            self.end_run(run["id"], "interrupted", "failed", "its controller died before it was closed")
        return dead

    def append_part(self, run_id: str, host: str, activity: str, part: dict[str, Any]) -> None:
        """Keep what one task answered, as it arrives."""
        row = {"run_id": run_id, "host": host, "activity": activity, "document": part}
        with self._transaction() as connection:
            received = clock.to_text(clock.now())
            connection.execute(parts.insert().values(id=new_id(), received=received, **row))

    def append_results(self, documents: list[dict[str, Any]]) -> None:
        """Keep finished results, all or none."""
        with self._transaction() as connection:
            for document in documents:
                data = document["data"]
                connection.execute(
                    results.insert().values(
                        id=document["id"],
                        run_id=data["run"]["id"],
                        check_mode=data["run"]["check_mode"],
                        document=document,
                        **{key: data[key] for key in ("host", "activity", "started", "finished", "outcome")},
                    )
                )

    # Reading

    def run(self, run_id: str) -> dict[str, Any] | None:
        """What open_run recorded, with ``ended``, ``state`` (``open`` while it goes on), ``verdict`` and ``detail``."""
        found = self._runs(runs.c.id == run_id)
        return found[0] if found else None

    def latest_run(self, *, state: str = "closed") -> dict[str, Any] | None:
        """The run in *state* that was opened last."""
        found = self._runs(run_endings.c.state == state, limit=1)
        return found[0] if found else None

    def first_run_started(self) -> str:
        """When the first run ever was opened; empty when there was none."""
        with self._reading() as connection:
            return connection.execute(sa.select(sa.func.min(runs.c.started))).scalar() or ""

    def open_runs(self) -> list[dict[str, Any]]:
        """Runs without an ending: going on, or died."""
        return self._runs(run_endings.c.run_id.is_(None))

    def interrupted_since(self, started: str) -> list[dict[str, Any]]:
        """Runs that were opened after *started* and did not reach their end."""
        return self._runs(sa.and_(run_endings.c.state == "interrupted", runs.c.started > started))

    def _runs(self, condition: Any, limit: int | None = None) -> list[dict[str, Any]]:
        with self._reading() as connection:
            return self._select_runs(connection, condition, limit)

    @staticmethod
    def _select_runs(connection: sa.Connection, condition: Any, limit: int | None = None) -> list[dict[str, Any]]:
        query = (
            sa.select(runs.c.document, run_endings)
            .select_from(runs.outerjoin(run_endings))
            .where(condition)
            .order_by(runs.c.started.desc(), runs.c.id.desc())
            .limit(limit)
        )
        return [
            {
                **row.document,
                "ended": row.ended or "",
                "state": row.state or "open",
                "verdict": row.verdict or "",
                "detail": row.detail or "",
            }
            for row in connection.execute(query)
        ]

    def results_of(self, run_id: str) -> list[dict[str, Any]]:
        """The result documents of one run, in the order in which they were finished."""
        return self._documents(results.c.run_id == run_id)

    def parts_of(self, run_id: str) -> list[dict[str, Any]]:
        """``{host, activity, received, document}`` of each part that arrived in one run."""
        with self._reading() as connection:
            rows = connection.execute(sa.select(parts).where(parts.c.run_id == run_id).order_by(parts.c.id)).all()
        return [{key: getattr(row, key) for key in ("host", "activity", "received", "document")} for row in rows]

    def latest_results(self, *, good: bool = False) -> dict[tuple[str, str], dict[str, Any]]:
        """The newest result document of each (host, activity); with *good*, the newest that counts as evidence.

        What a check-mode run recorded never counts, and what was skipped or failed is no evidence.
        """
        wanted = GOOD_OUTCOMES if good else OUTCOMES
        eligible = sa.and_(results.c.check_mode.is_(False), results.c.outcome.in_(wanted))
        newest = (
            sa.select(results.c.host, results.c.activity, sa.func.max(results.c.finished).label("finished"))
            .where(eligible)
            .group_by(results.c.host, results.c.activity)
            .subquery()
        )
        same = [results.c[key] == newest.c[key] for key in ("host", "activity", "finished")]
        query = sa.select(results.c.document).join(newest, sa.and_(*same)).where(eligible).order_by(results.c.id)
        with self._reading() as connection:
            documents = [row.document for row in connection.execute(query)]
        return {(document["data"]["host"], document["data"]["activity"]): document for document in documents}

    def last_good_result(self, host: str, activity: str) -> dict[str, Any] | None:
        """The newest result document of one activity on one host that counts as evidence."""
        mine = sa.and_(results.c.host == host, results.c.activity == activity)
        good = sa.and_(results.c.check_mode.is_(False), results.c.outcome.in_(GOOD_OUTCOMES))
        newest_first = (results.c.finished.desc(), results.c.id.desc())
        query = sa.select(results.c.document).where(mine, good).order_by(*newest_first).limit(1)
        with self._reading() as connection:
            return connection.execute(query).scalar()

    def history(self, host: str, activity: str, limit: int) -> list[dict[str, Any]]:
        """The last *limit* results of one activity on one host outside check mode, oldest first."""
        mine = sa.and_(results.c.host == host, results.c.activity == activity, results.c.check_mode.is_(False))
        query = sa.select(results.c.document).where(mine).order_by(results.c.finished.desc()).limit(limit)
        with self._reading() as connection:
            return [row.document for row in connection.execute(query)][::-1]

    def _documents(self, condition: Any) -> list[dict[str, Any]]:
        query = sa.select(results.c.document).where(condition).order_by(results.c.finished, results.c.id)
        with self._reading() as connection:
            return [row.document for row in connection.execute(query)]


def _make_private_file(path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise MaintenanceError(
            "open the ledger",
            where=str(path),
            expected="a file that can be read and written",
            observed=error.strerror or str(error),
            advice="Correct the permissions or the path, or name another ledger in WELLKEPT_LEDGER.",
        ) from None


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # we begin transactions ourselves
    for setting in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {setting}")


def _advice_for(words: str) -> str:
    if "locked" in words:
        return "Another process holds the ledger: see who with `fuser` on its file, and run again when it is free."
    if "readonly" in words or "read-only" in words:
        return "Give the operator's account write access to the file and to its directory."
    if "not a database" in words or "malformed" in words:
        return "Restore the ledger from its backup, or move the damaged file aside to start a new one."
    if "full" in words:
        return "Free some space on the control node."
    return "Check the URL, the server and the account's rights."
