# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a restored cluster holds, against what was recorded when its backup was made."""

from __future__ import annotations

import contextlib
import os
import re
import typing as t
from concurrent.futures import ThreadPoolExecutor

from .. import fingerprint, postgresql
from ..backup.programs import workers
from ..errors import MaintenanceError
from ..processes import last_words
from ..result import Part
from .scratch_cluster import ScratchCluster

# A database of our own to be connected to while others are renamed and made.
_WORKBENCH = "wellkept_workbench"
_SHOWN = 5

# Entries of a dump that are computed from other data when restored, or reach beyond the cluster.
_LEFT_OUT_OF_DUMP = re.compile(r"^\d+; \d+ \d+ (MATERIALIZED VIEW DATA|SUBSCRIPTION|EVENT TRIGGER) ")

_COLUMNS = """
SELECT n.nspname AS schema, c.relname AS name,
       ARRAY(SELECT a.attname FROM pg_catalog.pg_attribute a
              WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum)::text AS columns
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r'
"""


def check_marker(cluster: ScratchCluster, marker: t.Mapping[str, t.Any], part: Part) -> None:
    """The row that was written just before the restore point must be there: so no WAL before it was lost."""
    with contextlib.closing(cluster.connect(marker["database"])) as connection:
        try:
            rows = postgresql.query(
                connection, "SELECT label FROM wellkept.backup_marker WHERE id = %s", [marker["id"]]
            )
            observed = "it is there" if rows else "it is not there"
        except postgresql.QueryError as error:
            rows, observed = [], error.observed
    part.require(
        "marker row at the restore point",
        bool(rows),
        expected=f"the row {marker['id']} in wellkept.backup_marker of {marker['database']}",
        observed=observed,
        advice="WAL before the restore point was lost; do not rely on this backup, make a new full one.",
    )


def check_content(cluster: ScratchCluster, recorded: t.Mapping[str, t.Any], part: Part) -> None:
    """Compare every table of every database with its *recorded* fingerprint."""
    tables = rows = 0
    for database, expected in sorted(recorded.items()):
        name = f"content of the restored database {database}"
        try:
            observed, not_compared = _fingerprints(cluster, database, expected)
        except MaintenanceError as error:
            _not_read(part, name, error)
            continue
        tables += len(observed)
        rows += sum(entry["rows"] for entry in observed.values())
        _require_same(part, name, expected, observed, not_compared)
    for database in _not_recorded(cluster, recorded):
        part.check(
            f"content of the restored database {database}",
            "unknown",
            expected="fingerprints that were recorded with the backup",
            observed="there are none: the database was created while the backup was made",
            advice="Make another backup.",
        )
    part.metric("tables_compared", tables, "count")
    part.metric("rows_compared", rows, "count")


def _not_recorded(cluster: ScratchCluster, recorded: t.Mapping[str, t.Any]) -> list[str]:
    with contextlib.closing(cluster.connect(min(recorded))) as connection:
        return [name for name in postgresql.databases(connection) if name not in recorded]


def _fingerprints(
    cluster: ScratchCluster, database: str, expected: t.Mapping[str, t.Any], left_out: t.Container[str] = ()
) -> tuple[dict[str, t.Any], list[dict[str, str]]]:
    with contextlib.closing(cluster.connect(database)) as connection:
        compared, not_compared = fingerprint.tables(connection)
    chosen = [table for table in compared if table.key not in left_out]
    batches = fingerprint.batches(fingerprint.with_methods_of(chosen, expected))
    found: dict[str, t.Any] = {}
    with ThreadPoolExecutor(workers()) as pool:
        shares = [pool.submit(_read, cluster, database, batches[number :: workers()]) for number in range(workers())]
        for share in shares:
            found.update(share.result())
    return found, not_compared


def _read(
    cluster: ScratchCluster, database: str, batches: t.Sequence[t.Sequence[fingerprint.Table]]
) -> dict[str, t.Any]:
    """Fingerprints of the tables of *batches*, through a connection of their own."""
    if not batches:
        return {}
    with contextlib.closing(cluster.connect(database)) as connection:
        return fingerprint.fingerprint(connection, [table for batch in batches for table in batch])


def _not_read(part: Part, name: str, error: MaintenanceError) -> None:
    part.require(
        name,
        False,
        expected="content that can be read",
        observed=f"{error.what}: {error.observed}",
        advice=error.advice,
    )


def _require_same(
    part: Part,
    name: str,
    expected: t.Mapping[str, t.Any],
    observed: t.Mapping[str, t.Any],
    not_compared: t.Sequence[t.Mapping[str, str]] = (),
    *,
    advice: str = "Do not rely on this backup: make a new full one, and find out what changed the content.",
) -> None:
    differences = fingerprint.compare(expected, observed)
    words = f"{len(expected)} tables, {sum(entry['rows'] for entry in expected.values())} rows"
    part.require(
        name,
        not differences,
        expected=f"{words} as recorded",
        observed=_shortened(differences) if differences else f"{words}, all with the recorded fingerprint",
        advice=advice,
        differences=differences[:100],
        not_compared=[dict(entry) for entry in not_compared],
    )


def _shortened(differences: t.Sequence[str]) -> str:
    more = len(differences) - _SHOWN
    return "; ".join(differences[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def check_structure(cluster: ScratchCluster, heap_all_indexed: bool, part: Part) -> None:
    """Let pg_amcheck look at every table and index of every database."""
    name = "amcheck of the restored cluster"
    arguments = ["--all", "--install-missing", f"--jobs={workers()}", "--progress"]
    done = cluster.run_tool(
        "pg_amcheck", *arguments, *(["--heapallindexed"] if heap_all_indexed else []), accept=range(256)
    )
    if re.search(r"extension \"amcheck\" is not available|could not open extension control file", done.stderr):
        part.check(
            name,
            "unknown",
            expected="tables and indexes that are sound",
            observed="the extension amcheck is not installed on this host",
            advice="apt-get install postgresql-contrib (or set amcheck to false)",
        )
        return
    seen = re.findall(r"(\d+)/(\d+) relations \(100%\), *(\d+)/", done.stderr)
    problems = [line for line in done.stdout.splitlines() if line.strip()]
    sound = done.returncode == 0 and bool(seen) and int(seen[-1][1]) > 0 and not problems
    part.require(
        name,
        sound,
        expected="tables and indexes that are sound",
        observed=f"{seen[-1][1]} tables and indexes, {seen[-1][2]} pages without a fault"
        if sound
        else f"exit status {done.returncode}: {last_words(chr(10).join(problems[:_SHOWN]) or done.stderr)}",
        advice="The backup holds damaged pages or indexes: run pg_amcheck on the live cluster too.",
        problems=problems[:50],
    )
    if seen:
        part.metric("pages_checked", int(seen[-1][2]), "count")


def check_dumps(
    cluster: ScratchCluster, dumps: t.Mapping[str, str], recorded: t.Mapping[str, t.Any], part: Part
) -> None:
    """Restore each of *dumps* ({database: path}) and compare its tables with the *recorded* fingerprints.

    The database that was restored from the files is renamed before, so that the dump gets its own name and, with
    ``--create``, its own encoding and settings.
    """
    with contextlib.closing(cluster.connect(min(dumps))) as connection:
        postgresql.query(connection, f"CREATE DATABASE {_WORKBENCH} TEMPLATE template0")
    for number, (database, path) in enumerate(sorted(dumps.items())):
        name = f"content of the restored dump of {database}"
        aside = f"wellkept_from_files_{number}"
        try:
            with contextlib.closing(cluster.connect(_WORKBENCH)) as connection:
                quoted = fingerprint.quoted(database)
                postgresql.query(connection, f"ALTER DATABASE {quoted} RENAME TO {aside}")
            _restore_dump(cluster, path)
            left_out = _left_out(cluster, aside, database)
            expected = {key: entry for key, entry in recorded.get(database, {}).items() if key not in left_out}
            observed, _not_compared = _fingerprints(cluster, database, expected, left_out)
        except MaintenanceError as error:
            _not_read(part, name, error)
            continue
        reasons = [{"table": key, "reason": reason} for key, reason in sorted(left_out.items())]
        advice = "The dump does not hold what the cluster held: do not rely on it, and make a new backup."
        _require_same(part, name, expected, observed, reasons, advice=advice)


def _restore_dump(cluster: ScratchCluster, path: str) -> None:
    listed = cluster.run_tool("pg_restore", "--list", path).stdout
    chosen = "".join(f"{line}\n" for line in listed.splitlines() if not _LEFT_OUT_OF_DUMP.match(line))
    # A file in memory: nothing to clean up when we are killed.
    descriptor = os.memfd_create("wellkept-restore-list", 0)
    try:
        os.write(descriptor, chosen.encode())
        cluster.run_tool(
            "pg_restore", "--create", f"--dbname={_WORKBENCH}", f"--jobs={workers()}",
            f"--use-list=/dev/fd/{descriptor}", path, pass_fds=(descriptor,), what="restore a dump with pg_restore",
        )  # fmt: skip
    finally:
        os.close(descriptor)


def _left_out(cluster: ScratchCluster, from_files: str, from_dump: str) -> dict[str, str]:
    """Tables of which the dump is not expected to give the same fingerprint, and why."""
    with contextlib.closing(cluster.connect(from_files)) as connection:
        compared, _not_compared = fingerprint.tables(connection)
        columns = _columns(connection)
    with contextlib.closing(cluster.connect(from_dump)) as connection:
        columns_of_dump = _columns(connection)
    reasons = {}
    for table in compared:
        name = (table.schema, table.name)
        if table.in_extension:
            reasons[table.key] = "it belongs to an extension, which makes it again"
        elif table.kind == "m":
            reasons[table.key] = "materialized view: a restored dump computes it again"
        elif name in columns_of_dump and columns[name] != columns_of_dump[name]:
            reasons[table.key] = "an inherited table whose columns have another order in the dump"
    return reasons


def _columns(connection: t.Any) -> dict[tuple[str, str], str]:
    return {(row["schema"], row["name"]): row["columns"] for row in postgresql.query(connection, _COLUMNS)}
