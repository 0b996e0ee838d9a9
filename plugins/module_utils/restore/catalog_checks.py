# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a restored cluster consists of beside its rows, against what was recorded when its backup was made."""

from __future__ import annotations

import contextlib
import re
import typing as t

from .. import postgresql
from ..catalog import comparison, listing
from ..catalog.listing import Listing
from ..errors import MaintenanceError
from ..result import Part
from .scratch_cluster import ScratchCluster

_SHOWN = 5
_AT_ONCE = 100
_NO_LIBRARY = re.compile(r"could not (access file|load library)|No such file")

# What the server was told of collations when indexes were built, and what the libraries of this host say.
_COLLATIONS = """
SELECT pg_catalog.quote_ident(collname) AS name, collversion AS recorded,
       pg_catalog.pg_collation_actual_version(oid) AS actual
  FROM pg_catalog.pg_collation WHERE collversion IS NOT NULL
"""
_DATABASE_COLLATION = """
SELECT 'default of ' || datname AS name, datcollversion AS recorded,
       pg_catalog.pg_database_collation_actual_version(oid) AS actual
  FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database() AND datcollversion IS NOT NULL
"""
_DATABASE_COLLATION_SINCE = 150000

# Columns that take their numbers from a sequence, as their default or as their identity.
_TAKERS = """
SELECT DISTINCT pg_catalog.format('%I.%I', sn.nspname, s.relname) AS sequence,
       pg_catalog.format('%I.%I', tn.nspname, t.relname) AS relation, pg_catalog.quote_ident(a.attname) AS column,
       q.seqincrement AS increment, q.seqcycle AS cycles
  FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_class s ON s.oid = d.objid AND s.relkind = 'S'
  JOIN pg_catalog.pg_sequence q ON q.seqrelid = s.oid JOIN pg_catalog.pg_namespace sn ON sn.oid = s.relnamespace
  JOIN pg_catalog.pg_class t ON t.oid = d.refobjid AND t.relkind IN ('r', 'p')
  JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace
  JOIN pg_catalog.pg_attribute a ON a.attrelid = t.oid AND a.attnum = d.refobjsubid
 WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass
   AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0 AND a.atttypid IN (20, 21, 23)
   AND s.relpersistence = 'p' AND t.relpersistence = 'p'
"""


def check_catalogs(cluster: ScratchCluster, recorded: t.Mapping[str, t.Any] | None, database: str, part: Part) -> None:
    """Hold roles, schemas, sequences and extensions against what was *recorded*; *database* is one to connect to."""
    if recorded is None:
        part.check(
            "schema, sequences, roles and extensions of the restored cluster",
            "unknown",
            expected="what was recorded with the backup",
            observed="not compared: nothing of them was recorded when this backup was made",
            advice="Make another backup.",
        )
    else:
        unsure = set(recorded["changing"])
        with contextlib.closing(cluster.connect(database)) as connection:
            observed = listing.of_cluster(connection)
            _same(part, "roles and rights of the restored cluster", recorded["cluster"], observed, unsure)
        for name, facts in sorted(recorded["databases"].items()):
            _check_database(cluster, name, facts, _unsure_in(name, unsure), part)
    _check_collations(cluster, database, part)


def _unsure_in(database: str, unsure: t.Iterable[str]) -> set[str]:
    end = f" in {database}"
    return {name[: -len(end)] for name in unsure if name.endswith(end)}


def _check_database(
    cluster: ScratchCluster, database: str, facts: t.Mapping[str, t.Any], unsure: set[str], part: Part
) -> None:
    try:
        with contextlib.closing(cluster.connect(database)) as connection:
            observed = listing.of_database(connection)
            expected, found = _without_extensions(facts["objects"]), _without_extensions(observed)
            _same(part, f"schema of the restored database {database}", expected, found, unsure)
            _same_extensions(part, database, facts["objects"], observed, _not_loadable(connection, observed))
            _check_sequences(connection, database, facts["sequences"], observed, part)
    except MaintenanceError as error:
        part.require(
            f"schema of the restored database {database}",
            False,
            expected="catalogs that can be read",
            observed=f"{error.what}: {error.observed}",
            advice=error.advice,
        )


def _without_extensions(objects: Listing) -> Listing:
    return {name: facts for name, facts in objects.items() if not _is_extension(name)}


def _is_extension(name: str) -> bool:
    return name.startswith("extension ")


def _same(part: Part, name: str, expected: Listing, observed: Listing, unsure: set[str]) -> None:
    """What is missing or different is a fault; what is too many may have come and gone while it was listed."""
    found = comparison.differences(expected, observed, unsure)
    lost = [line for line in found if not line.endswith(comparison.TOO_MANY)]
    part.check(
        name,
        "failed" if lost else "warned" if found else "passed",
        expected=f"{len(expected)} entries as recorded",
        observed=_shortened(lost or found) if found else f"{len(observed)} entries, as recorded",
        advice="What is named was lost or changed on its way: do not rely on this backup, and make a new full one."
        if lost
        else "It was there for a moment only, while the backup was made; if not, find out how it came into the backup.",
        evidence={"differences": found[:100], "changed_at_that_moment": sorted(unsure)[:100]},
    )


def _same_extensions(part: Part, database: str, recorded: Listing, observed: Listing, broken: list[str]) -> None:
    expected = {name: facts for name, facts in recorded.items() if _is_extension(name)}
    there = {name: facts for name, facts in observed.items() if _is_extension(name)}
    found = [*comparison.differences(expected, there), *broken]
    part.require(
        f"extensions of the restored database {database}",
        not found,
        expected=f"{len(expected)} as recorded, their libraries on this host",
        observed=_shortened(found) if found else f"{len(there)}, as recorded; their libraries can be loaded",
        advice="Install the packages of these extensions, in the same version, on every host to be restored to.",
        differences=found,
    )


def _not_loadable(connection: t.Any, objects: Listing) -> list[str]:
    """Libraries that functions of this database need and that are not on this host."""
    names = {str(facts["library"]) for facts in objects.values() if facts.get("language") == "c" and "library" in facts}
    sql = postgresql.driver().sql
    found = []
    for name in sorted(names):
        try:
            postgresql.query(connection, sql.SQL("LOAD {}").format(sql.Literal(name)))
        except postgresql.QueryError as error:
            # Others are there, but want to be loaded when the server starts.
            if _NO_LIBRARY.search(error.observed):
                found.append(f"library {name}: {error.observed}")
    return found


def _check_sequences(
    connection: t.Any, database: str, recorded: t.Mapping[str, int | None], objects: Listing, part: Part
) -> None:
    values = listing.sequence_values(connection)
    found = []
    for name, least in sorted(recorded.items()):
        facts = objects.get(f"sequence {name}")
        if facts is None or facts["cycles"]:
            continue  # a missing one is named with the schema
        if comparison.is_behind(values.get(name), least, facts["increment"]):
            found.append(f"{name} stands at {values.get(name) or 'its start'}, though it had given {least}")
    part.require(
        f"sequences of the restored database {database}",
        not found,
        expected="no sequence behind what it had given before the point",
        observed=_shortened(found) if found else f"{len(recorded)} sequences, none behind",
        advice="It would give numbers again that were used: do not rely on this backup, and make a new full one.",
        differences=found[:100],
    )
    _warn_of_columns_ahead(connection, database, values, part)


def _warn_of_columns_ahead(connection: t.Any, database: str, values: t.Mapping[str, int | None], part: Part) -> None:
    """Columns with numbers that their sequence has yet to give, written by hand: so it is at the live cluster, too."""
    takers = [row for row in postgresql.query(connection, _TAKERS) if not row["cycles"]]
    found = []
    for row, farthest in zip(takers, _farthest(connection, takers)):  # noqa: B905 - Python 3.9
        if comparison.is_behind(values.get(row["sequence"]), farthest, row["increment"]):
            found.append(f"{row['relation']}.{row['column']} holds {farthest}, {row['sequence']} stands at "
                         f"{values.get(row['sequence']) or 'its start'}")  # fmt: skip
    if found:
        part.check(
            f"numbers that sequences of {database} have yet to give",
            "warned",
            expected="none in the columns that take their numbers from them",
            observed=_shortened(found),
            advice="The live cluster has them, too: rows were written with numbers of their own. Set the sequences by "
            "setval, before inserts fail.",
            evidence={"found": found[:100]},
        )


def _farthest(connection: t.Any, takers: t.Sequence[t.Mapping[str, t.Any]]) -> list[int | None]:
    """The number in the column of each of *takers* that its sequence comes to last, many by one statement."""
    found: list[int | None] = []
    for first in range(0, len(takers), _AT_ONCE):
        statements = [_last_number(*entry) for entry in enumerate(takers[first : first + _AT_ONCE])]
        rows = postgresql.query(connection, " UNION ALL ".join(statements))
        found += [row["farthest"] for row in sorted(rows, key=lambda row: int(row["number"]))]
    return found


def _last_number(number: int, taker: t.Mapping[str, t.Any]) -> str:
    last = f"{'max' if taker['increment'] > 0 else 'min'}({taker['column']})"
    # The names were quoted by the server.
    return f"SELECT {number} AS number, {last}::bigint AS farthest FROM {taker['relation']}"  # noqa: S608


def _check_collations(cluster: ScratchCluster, database: str, part: Part) -> None:
    with contextlib.closing(cluster.connect(database)) as connection:
        names = postgresql.databases(connection)
        version = postgresql.server_version(connection)
    found: list[str] = []
    for name in names:
        with contextlib.closing(cluster.connect(name)) as connection:
            rows = postgresql.query(connection, _COLLATIONS)
            if version >= _DATABASE_COLLATION_SINCE:
                rows += postgresql.query(connection, _DATABASE_COLLATION)
        found += [
            f"{row['name']} in {name}: {row['recorded']}, here {row['actual'] or 'unknown'}"
            for row in rows
            if row["recorded"] != row["actual"]
        ]
    part.check(
        "versions of collations",
        "warned" if found else "passed",
        expected="those by which the indexes were built",
        observed=_shortened(found) if found else "the same on this host",
        advice="The libraries here sort otherwise than those of the live cluster: after a restore to this host, "
        "REINDEX every index on text, then ALTER … REFRESH VERSION; or install the same libc and ICU.",
        evidence={"found": found[:50]},
    )


def _shortened(found: t.Sequence[str]) -> str:
    more = len(found) - _SHOWN
    return "; ".join(found[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
