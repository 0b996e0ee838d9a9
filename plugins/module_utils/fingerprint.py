# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a table holds, in two numbers that no order of rows changes: the count of rows and the sum of their hashes.

Two tables with equal fingerprints hold the same rows (but for a chance of 1 in 2**64); one row more, less or different
changes the sum. There are two methods, chosen for each table from the catalog, and they give different sums:

``record``
    ``hash_record_extended`` of the row, hashed once more: fast. Like PostgreSQL's equality it does not tell 1.0 from
    1.00. Hashed once more, because the record's hash is a linear combination of those of its columns: the plain sum
    stays the same when two rows exchange a value, two students their marks.
``text``
    ``hashtextextended`` of the row's text: for columns whose type has no such hash (json, point, xml, money ...), or
    one that depends on more than the value (enums and reg* types hash an OID that a restored dump does not keep), or on
    less (citext, nondeterministic collations).

Sums can be compared within one major version of PostgreSQL.
"""

from __future__ import annotations

import typing as t

from .errors import MaintenanceError

# What the text of a value, and what a query may see, depends on. Identifiers are always written qualified.
_SETTINGS = {
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "3",
    "lc_monetary": "C",
    "quote_all_identifiers": "off",
    "row_security": "off",
    "search_path": "pg_catalog",
    "statement_timeout": "0",
    "xmlbinary": "base64",
    "xmloption": "content",
    "jit": "off",
}

# hash_record_extended exists from here on.
_RECORD_HASH_VERSION = 140000

_LIST = """
SELECT c.oid::bigint AS oid, n.nspname AS schema, c.relname AS name, c.relkind::text AS kind,
       c.relpersistence::text AS persistence, c.relispopulated AS populated, c.relpages AS pages,
       EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::regclass
                  AND d.objid = c.oid AND d.deptype = 'e') AS in_extension
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'm', 'f')
   AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
 ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C"
"""

_HAS_LARGE_OBJECTS = "SELECT EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata) AS found"

# Relations with a column whose type, seen through domains, arrays, composites and ranges, holds something that the
# record hash cannot or should not hash. Only hash functions that PostgreSQL itself ships are relied on.
_NEEDING_TEXT = """
WITH RECURSIVE attributes AS (
  SELECT attrelid, atttypid, attcollation FROM pg_catalog.pg_attribute WHERE attnum > 0 AND NOT attisdropped
), reach(root, typ) AS (
  SELECT DISTINCT a.atttypid, a.atttypid
    FROM attributes a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid AND c.relkind IN ('r', 'm')
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
   WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
  UNION
  SELECT r.root, part.typ FROM reach r CROSS JOIN LATERAL (
      SELECT typbasetype FROM pg_catalog.pg_type WHERE oid = r.typ AND typtype = 'd'
      UNION ALL SELECT oid FROM pg_catalog.pg_type WHERE typarray = r.typ
      UNION ALL SELECT a.atttypid FROM pg_catalog.pg_type ty JOIN attributes a ON a.attrelid = ty.typrelid
                 WHERE ty.oid = r.typ AND ty.typtype = 'c'
      UNION ALL SELECT rngsubtype FROM pg_catalog.pg_range WHERE r.typ IN (rngtypid, rngmultitypid)
  ) AS part(typ)
), hashed(typ) AS (
  SELECT o.opcintype FROM pg_catalog.pg_opclass o JOIN pg_catalog.pg_am am ON am.oid = o.opcmethod
    JOIN pg_catalog.pg_amproc p ON p.amprocfamily = o.opcfamily AND p.amprocnum = 2
     AND p.amproclefttype = o.opcintype AND p.amprocrighttype = o.opcintype
   WHERE am.amname = 'hash' AND o.opcdefault
), sound(typ) AS (
  SELECT ty.oid FROM pg_catalog.pg_type ty
   WHERE ty.typnamespace = 'pg_catalog'::regnamespace AND ty.typtype = 'b' AND ty.typname !~ '^reg'
     AND (ty.oid IN (SELECT typ FROM hashed)
          OR EXISTS (SELECT FROM pg_catalog.pg_cast k WHERE k.castsource = ty.oid AND k.castmethod = 'b'
                        AND k.castcontext = 'i' AND k.casttarget IN (SELECT typ FROM hashed)))
), vague(coll) AS (
  SELECT oid FROM pg_catalog.pg_collation WHERE NOT collisdeterministic
), unsound(typ) AS (
  SELECT r.root FROM reach r JOIN pg_catalog.pg_type ty ON ty.oid = r.typ
   WHERE (ty.typtype NOT IN ('d', 'c', 'r', 'm') AND NOT EXISTS (SELECT FROM sound WHERE typ = ty.oid)
          AND NOT EXISTS (SELECT FROM pg_catalog.pg_type e WHERE e.typarray = ty.oid))
      OR (ty.typtype = 'c' AND EXISTS (SELECT FROM attributes a JOIN vague ON vague.coll = a.attcollation
                                        WHERE a.attrelid = ty.typrelid))
      OR EXISTS (SELECT FROM pg_catalog.pg_range g JOIN vague ON vague.coll = g.rngcollation
                  WHERE ty.oid IN (g.rngtypid, g.rngmultitypid))
)
SELECT DISTINCT a.attrelid::bigint AS oid FROM attributes a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
 WHERE c.relkind IN ('r', 'm')
   AND (a.atttypid IN (SELECT typ FROM unsound) OR a.attcollation IN (SELECT coll FROM vague))
"""

_HASHES = {
    "record": 'pg_catalog.hashtextextended(pg_catalog.to_hex(pg_catalog.hash_record_extended(t.*, 0)) COLLATE "C", 0)',
    "text": 'pg_catalog.hashtextextended((t.*)::text COLLATE "C", 0)',
}

# Tables of up to 4 MiB are small: what costs time is to ask for each of them.
_SMALL_PAGES = 512
_SMALL_AT_ONCE = 100
_NAMED = 3
# libpq's PQTRANS_IDLE.
_NO_TRANSACTION = 0

Fingerprint = t.Dict[str, t.Any]


class Table(t.NamedTuple):
    """A table that can be compared: a plain table, a leaf partition or a materialized view."""

    schema: str
    name: str
    method: str
    kind: str = "r"
    in_extension: bool = False
    # As many as the last VACUUM or ANALYZE found.
    pages: int = 0

    @property
    def key(self) -> str:
        """``schema.table``; a part that holds a dot or a quote is quoted, so that no two tables share a key."""
        return ".".join(quoted(part) if set(part) & {".", '"'} else part for part in (self.schema, self.name))

    @property
    def sql(self) -> str:
        """The table's qualified and quoted name for a statement."""
        return f"{quoted(self.schema)}.{quoted(self.name)}"


def tables(connection: t.Any) -> tuple[list[Table], list[dict[str, str]]]:
    """The tables of the connection's database that can be compared, and those that cannot: {table, reason}."""
    use_settings(connection)
    version = int(_query(connection, "SELECT pg_catalog.current_setting('server_version_num') AS v")[0]["v"])
    records = version >= _RECORD_HASH_VERSION
    needing_text = {row["oid"] for row in _query(connection, _NEEDING_TEXT)} if records else set()
    compared, not_compared = [], []
    for row in _query(connection, _LIST):
        method = "record" if records and row["oid"] not in needing_text else "text"
        table = Table(row["schema"], row["name"], method, row["kind"], row["in_extension"], row["pages"])
        reason = _reason_not_to_compare(row)
        if reason:
            not_compared.append({"table": table.key, "reason": reason})
        else:
            compared.append(table)
    if _query(connection, _HAS_LARGE_OBJECTS)[0]["found"]:
        reason = "large objects are covered by the checksums of pages and files alone"
        not_compared.append({"table": "pg_catalog.pg_largeobject", "reason": reason})
    return compared, not_compared


def _reason_not_to_compare(row: dict[str, t.Any]) -> str:
    if row["persistence"] == "t":
        return "temporary table: it belongs to one session and is in no backup"
    if row["persistence"] == "u":
        return "unlogged table: recovery empties it"
    if row["kind"] == "f":
        return "foreign table: its rows are on another server"
    if not row["populated"]:
        return "materialized view that was never populated"
    return ""


def hold(connection: t.Any, chosen: t.Iterable[Table]) -> None:
    """Keep *chosen* from being truncated, rewritten, refreshed or dropped until the connection's transaction ends.

    A snapshot alone does not: TRUNCATE, rewriting ALTER TABLE and REFRESH MATERIALIZED VIEW show through it. Take it
    before others can write again. Readers and ordinary writers are not blocked.
    """
    for table in chosen:
        if table.kind == "m":  # LOCK TABLE refuses materialized views
            _query(connection, f"SELECT FROM {table.sql} LIMIT 0", table.key)
        else:
            _query(connection, f"LOCK TABLE ONLY {table.sql} IN ACCESS SHARE MODE", table.key)


def fingerprint(connection: t.Any, chosen: t.Iterable[Table]) -> dict[str, Fingerprint]:
    """Count and sum of hashes of each of *chosen*, by key: {rows, sum (a decimal number as text), method}."""
    use_settings(connection)
    found = {}
    for batch in batches(chosen):
        for table, row in zip(batch, _rows_of(connection, batch)):  # noqa: B905 - Python 3.9
            found[table.key] = {"rows": row["rows"], "sum": row["sum"], "method": table.method}
    return found


def batches(chosen: t.Iterable[Table]) -> list[list[Table]]:
    """*chosen* as they are read, the largest first: a large table alone, small ones by one statement for many."""
    tables_by_size = sorted(chosen, key=lambda table: -table.pages)
    large = sum(table.pages > _SMALL_PAGES for table in tables_by_size)
    small = range(large, len(tables_by_size), _SMALL_AT_ONCE)
    return [[table] for table in tables_by_size[:large]] + [tables_by_size[n : n + _SMALL_AT_ONCE] for n in small]


def _rows_of(connection: t.Any, batch: t.Sequence[Table]) -> list[dict[str, t.Any]]:
    """Count and sum of each table of *batch*, in its order."""
    try:
        statement = " UNION ALL ".join(_statement(number, table) for number, table in enumerate(batch))
        rows = _query(connection, statement, ", ".join(table.key for table in batch[:_NAMED]))
    except MaintenanceError:
        if len(batch) == 1 or connection.info.transaction_status != _NO_TRANSACTION:
            raise
        # Which of them it was is told when each is read alone.
        return [_rows_of(connection, [table])[0] for table in batch]
    return sorted(rows, key=lambda row: int(row["number"]))


def _statement(number: int, table: Table) -> str:
    # The sum of bigint is exact: PostgreSQL adds them up as 128 bit and returns numeric.
    total = f"coalesce(pg_catalog.sum({_HASHES[table.method]}), 0)::text"
    return f"SELECT {number} AS number, pg_catalog.count(*) AS rows, {total} AS sum FROM ONLY {table.sql} AS t"  # noqa: S608


def with_methods_of(chosen: t.Iterable[Table], recorded: t.Mapping[str, Fingerprint]) -> list[Table]:
    """*chosen*, each with the method by which it was *recorded*: an older release may have chosen otherwise."""
    return [
        table._replace(method=recorded[table.key]["method"]) if table.key in recorded else table for table in chosen
    ]


def compare(expected: t.Mapping[str, Fingerprint], observed: t.Mapping[str, Fingerprint]) -> list[str]:
    """The differences in words, one for each table that differs; empty when all is the same."""
    differences = []
    for key in sorted({*expected, *observed}):
        if key not in observed:
            differences.append(f"{key} is missing (it had {expected[key]['rows']} rows)")
        elif key not in expected:
            differences.append(f"{key} should not be there (it has {observed[key]['rows']} rows)")
        else:
            difference = _difference(expected[key], observed[key])
            if difference:
                differences.append(f"{key} {difference}")
    return differences


def _difference(expected: Fingerprint, observed: Fingerprint) -> str:
    if observed["method"] != expected["method"]:
        return f"was recorded by method {expected['method']} but read by method {observed['method']}"
    if observed["rows"] != expected["rows"]:
        return f"has {observed['rows']} rows instead of {expected['rows']}"
    if observed["sum"] != expected["sum"]:
        return f"has {observed['rows']} rows as it should, but not the same content"
    return ""


def quoted(identifier: str) -> str:
    """*identifier* as a quoted SQL identifier."""
    if not identifier or "\0" in identifier:
        raise ValueError(f"{identifier!r} is no identifier")
    return '"' + identifier.replace('"', '""') + '"'


def use_settings(connection: t.Any) -> None:
    """Give the connection's session (or transaction, if that is rolled back) the settings that texts depend on."""
    assignments = ", ".join(f"pg_catalog.set_config('{name}', '{value}', false)" for name, value in _SETTINGS.items())
    _query(connection, f"SELECT {assignments}")


def _query(connection: t.Any, statement: str, where: str = "") -> list[dict[str, t.Any]]:
    """The rows of *statement* as dictionaries, by psycopg 3 or 2; without parameters, so that a ``%`` is just that."""
    try:
        cursor = connection.cursor()
        try:
            cursor.execute(statement)
            if cursor.description is None:
                return []
            names = [column[0] for column in cursor.description]
            rows = cursor.fetchall()
        finally:
            cursor.close()
    except connection.Error as error:
        raise MaintenanceError(
            "read a table in full" if where else "list the tables to compare",
            where=where,
            expected="a login that may read every table and every row of it",
            observed=" ".join(str(error).split()) or type(error).__name__,
            advice="Log in as a superuser, or grant the role pg_read_all_data and BYPASSRLS.",
        ) from error
    return [row if isinstance(row, dict) else dict(zip(names, row)) for row in rows]  # noqa: B905 - Python 3.9
