# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Measure every chosen database and decide what is to be done in it, and what not."""

from __future__ import annotations

import contextlib
import typing as t
from concurrent.futures import ThreadPoolExecutor

from .. import postgresql
from ..database import rights, scope, session
from ..database.horizon import Holder, holders
from ..database.rights import Rights
from ..errors import MaintenanceError
from ..postgresql import QueryError
from ..result import Part
from .decide import Settings, Step, decide, in_order, why_not, without_parts
from .held import Held, Inspector, in_vain, inspector_for
from .measure import LOCK_TIMEOUT, Sight, look_for, measure_tables, read_settings
from .table import Table, limits_of

PURPOSE = "database_vacuum"

# Databases that are looked at side by side; each takes the server a new process that has to get to know its catalogs.
AT_ONCE = 4

_INDEX_BYTES = """
SELECT i.indrelid::bigint AS oid, sum(pg_relation_size(i.indexrelid))::bigint AS bytes
FROM pg_catalog.pg_index i WHERE i.indrelid = ANY (%s::bigint[]::oid[]) GROUP BY i.indrelid
"""
_KNOWN_INDEX_BYTES = """
SELECT i.indrelid::bigint AS oid, sum(c.relpages * current_setting('block_size')::bigint)::bigint AS bytes
FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid = ANY (%s::bigint[]::oid[]) GROUP BY i.indrelid
"""


class Site(t.NamedTuple):
    """One database: how it is seen, its tables, what is to be done, and what is not although it is due.

    ``skipped`` are the tables that need nothing, each with the reason; ``denied`` those that the role may not vacuum.
    """

    sight: Sight
    tables: t.List[Table]
    steps: t.List[Step]
    held: t.List[Held]
    denied: t.List[Step]
    skipped: t.List[t.Tuple[str, str]]
    index_bytes: t.Dict[int, int]

    @property
    def name(self) -> str:
        return self.sight.database


class Server(t.NamedTuple):
    """What is common to all databases; ``unreachable`` are the chosen ones that cannot be worked on, with reasons."""

    version: int
    settings: t.Dict[str, float]
    holders: t.List[Holder]
    rights: Rights
    databases: t.List[str]
    unreachable: t.List[t.Tuple[str, str]]
    block_size: int


def ask_server(connection: t.Any, params: t.Mapping[str, t.Any]) -> Server:
    """The server that *connection* leads to, and the databases on it that *params* choose."""
    chosen = scope.chosen(connection, params, sizes=False)
    return Server(
        int(connection.info.server_version),
        read_settings(connection),
        holders(connection),
        rights.read_rights(connection),
        [database.name for database in chosen.databases],
        chosen.skipped,
        int(postgresql.value(connection, "SELECT current_setting('block_size')::int")),
    )


class Surveyor:
    """Looks at one database after the other, by the options in *params*; extensions it needs are recorded in *part*."""

    def __init__(
        self,
        server: Server,
        connection: t.Any,
        params: t.Mapping[str, t.Any],
        settings: Settings,
        part: Part,
        *,
        check_mode: bool,
    ) -> None:
        self.connection = connection  # to the database login_db
        self.server = server
        self.params = params
        self.settings = settings
        self.part = part
        self.check_mode = check_mode
        self.made_dirty: t.Set[str] = set()  # databases whose system catalogs an extension was written to
        self.patterns = scope.TablePatterns(params)

    def survey(self, database: str) -> Site:
        """Measure the tables of *database*, and decide."""
        if database == self.connection.info.dbname:
            return self._survey(database, self.connection)
        with contextlib.closing(session.open_session(self.params, database, purpose=PURPOSE)) as connection:
            return self._survey(database, connection)

    def _survey(self, database: str, connection: t.Any) -> Site:
        changes = len(self.part.changes)
        options: t.Dict[str, t.Any] = {"create": self.params["create_extensions"], "part": self.part}
        sight = look_for(connection, database, check_mode=self.check_mode, **options)
        tables = measure_tables(connection, sight)
        self.patterns.note(table.qualified for table in tables)
        site = self.judge(connection, sight, [table for table in tables if self.is_chosen(table)])
        if len(self.part.changes) > changes and not self.check_mode:
            self.made_dirty.add(database)
        return site

    def is_chosen(self, table: Table) -> bool:
        return scope.matches(table.qualified, self.params["tables"], self.params["exclude_tables"])

    def judge(self, connection: t.Any, sight: Sight, tables: t.List[Table]) -> Site:
        """What is to be done to *tables* of the database of *connection*."""
        site = Site(sight, tables, [], [], [], [], {})
        due = []
        for table in tables:
            step = decide(table, limits_of(table, self.server.settings), self.settings)
            if table.is_temporary:
                site.skipped.append((table.shown, "temporary table of a session"))
            elif step is None:
                site.skipped.append((table.shown, why_not(table)))
            elif not table.may_maintain:
                self._without_right(site, step)
            else:
                due.append(step)
        worth, held = self._worth_while(connection, sight, due)
        site.held.extend(held)
        site.steps.extend(in_order(without_parts(worth, tables, sight.version)))
        site.index_bytes.update(index_bytes(connection, [step.table.oid for step in site.steps if step.vacuum]))
        return site

    def _without_right(self, site: Site, step: Step) -> None:
        # System catalogs are left to autovacuum when the role may not vacuum them and nothing is urgent.
        if step.table.is_catalog and not step.is_urgent:
            site.skipped.append((step.table.shown, "system catalog, left to autovacuum: the role may not vacuum it"))
        else:
            site.denied.append(step)

    def _worth_while(self, connection: t.Any, sight: Sight, due: t.Sequence[Step]) -> tuple[t.List[Step], t.List[Held]]:
        inspectors: t.List[Inspector] = []

        def inspector() -> Inspector:
            if not inspectors:
                create = self.params["create_extensions"]
                options: t.Dict[str, t.Any] = {"create": create, "part": self.part, "check_mode": self.check_mode}
                inspectors.append(inspector_for(connection, sight, **options))
            return inspectors[0]

        worth, held = [], []
        for step in due:
            limits = limits_of(step.table, self.server.settings)
            found = in_vain(connection, step, limits, self.server.holders, inspector)
            if found is None:
                worth.append(step)
                continue
            held.append(found)
            if step.analyze:
                worth.append(step._replace(vacuum=False, freeze=False, failsafe=False))
        return worth, held


def index_bytes(connection: t.Any, oids: t.Sequence[int]) -> dict[int, int]:
    """Bytes of all indexes of each of the tables *oids*; by the catalog when an index is locked just now."""
    if not oids:
        return {}
    postgresql.query(connection, "SELECT pg_catalog.set_config('lock_timeout', %s, false)", [LOCK_TIMEOUT])
    try:
        rows = postgresql.query(connection, _INDEX_BYTES, [list(oids)])
    except QueryError:
        rows = postgresql.query(connection, _KNOWN_INDEX_BYTES, [list(oids)])
    return {row["oid"]: int(row["bytes"] or 0) for row in rows}


def survey_all(surveyor: Surveyor, part: Part) -> t.List[Site]:
    """All sites. A database that cannot be reached after all is a failed check, and no obstacle to the others."""
    sites = []
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        surveys = [(name, pool.submit(surveyor.survey, name)) for name in surveyor.server.databases]
    for database, survey in surveys:
        try:
            sites.append(survey.result())
        except MaintenanceError as error:
            part.check(
                f"look at the tables of the database {database}",
                "failed",
                expected=error.expected,
                observed=error.observed,
                advice=error.advice,
            )
    part.changes.sort(key=lambda change: str(change["name"]))
    surveyor.patterns.refuse_unmatched()
    return sites
