# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sequences that come to their end: the sequence's own, or that of the column which takes its numbers."""

from __future__ import annotations

import typing as t

from ..postgresql import QueryError, query

HOUR, DAY = 3600.0, 86400.0
REMEMBER = 90 * DAY
MOST_POINTS = 24
# A burst of a few hours says nothing about the months to come.
SURE_AFTER = 6 * DAY
FARTHEST = 50 * 365 * DAY

_SEQUENCES = """
SELECT n.nspname AS schema, c.relname AS name, c.oid::bigint AS oid,
       s.seqincrement AS increment, s.seqmin AS minimum, s.seqmax AS maximum, s.seqcycle AS cycles,
       coalesce(pg_catalog.has_sequence_privilege(c.oid, 'SELECT,USAGE'), true) AS readable,
       taker.column_name, taker.type, taker.bits
FROM pg_catalog.pg_sequence s
JOIN pg_catalog.pg_class c ON c.oid = s.seqrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN LATERAL (
    SELECT tn.nspname || '.' || tc.relname || '.' || a.attname AS column_name,
           pg_catalog.format_type(a.atttypid, NULL) AS type,
           CASE coalesce(nullif(ty.typbasetype, 0), ty.oid)
                WHEN 'int2'::regtype THEN 15 WHEN 'int4'::regtype THEN 31 ELSE 63 END AS bits
    FROM (SELECT d.refobjid AS relation, d.refobjsubid AS number FROM pg_catalog.pg_depend d
          WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid
            AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i')
          UNION
          SELECT ad.adrelid, ad.adnum FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_attrdef ad ON ad.oid = d.objid
          WHERE d.classid = 'pg_catalog.pg_attrdef'::regclass
            AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = c.oid) AS takers
    JOIN pg_catalog.pg_attribute a ON a.attrelid = takers.relation AND a.attnum = takers.number
    JOIN pg_catalog.pg_type ty ON ty.oid = a.atttypid
    JOIN pg_catalog.pg_class tc ON tc.oid = a.attrelid JOIN pg_catalog.pg_namespace tn ON tn.oid = tc.relnamespace
    ORDER BY 3, 1 LIMIT 1
) AS taker ON true
WHERE c.relpersistence <> 't'
"""
_LOCK_NOT_AVAILABLE = "55P03"
_LAST_VALUES = """
SELECT oid, pg_catalog.pg_sequence_last_value(oid::oid) AS last_value FROM unnest(%s::bigint[]) AS s (oid)
"""


class Sequence(t.NamedTuple):
    """A sequence; ``column`` is the narrowest column that takes its numbers, which has ``bits`` for them."""

    database: str
    key: str
    name: str
    last: t.Optional[int]
    minimum: int
    maximum: int
    increment: int
    cycles: bool
    column: str = ""
    type: str = ""
    bits: int = 63
    readable: bool = True

    @property
    def rises(self) -> bool:
        return self.increment > 0

    @property
    def limit(self) -> int:
        """The last number that both the sequence and the column can take."""
        if self.rises:
            return min(self.maximum, (1 << self.bits) - 1)
        return max(self.minimum, -(1 << self.bits))

    @property
    def used(self) -> float:
        """The share of its numbers that is used up; above 1 where the column is full and the sequence goes on.

        One that begins anew when it is at its end has none, unless its column is full before.
        """
        if self.last is None or (self.cycles and self.limit in (self.minimum, self.maximum)):
            return 0.0
        first = self.minimum if self.rises else self.maximum
        return abs(self.last - first) / max(abs(self.limit - first), 1)


class Forecast(t.NamedTuple):
    """When a sequence is at its end (POSIX seconds), and over how many seconds its pace was seen."""

    at: float
    span: float


def read_sequences(connection: t.Any, database: str, database_oid: int) -> t.List[Sequence]:
    """All sequences; one that somebody has locked is not readable, and one that vanished meanwhile is left out."""
    rows = query(connection, _SEQUENCES)
    last: t.Dict[int, t.Optional[int]] = {}
    vanished: t.Set[int] = set()
    _read_last_values(connection, [row["oid"] for row in rows if row["readable"]], last, vanished)
    return [
        Sequence(
            database,
            f"{database_oid}/{row['oid']}",
            f"{row['schema']}.{row['name']}",
            last.get(row["oid"]),
            row["minimum"],
            row["maximum"],
            row["increment"],
            row["cycles"],
            row["column_name"] or "",
            row["type"] or "",
            row["bits"] or 63,
            row["oid"] in last,
        )
        for row in rows
        if row["oid"] not in vanished
    ]


def _read_last_values(
    connection: t.Any, oids: t.List[int], last: t.Dict[int, t.Optional[int]], vanished: t.Set[int]
) -> None:
    """The last value of each sequence; one that cannot be had spoils the query, which is then asked in halves."""
    if not oids:
        return
    try:
        last.update({row["oid"]: row["last_value"] for row in query(connection, _LAST_VALUES, [oids])})
    except QueryError as error:
        if connection.closed:
            raise
        middle = len(oids) // 2
        if middle:
            _read_last_values(connection, oids[:middle], last, vanished)
            _read_last_values(connection, oids[middle:], last, vanished)
        elif error.sqlstate != _LOCK_NOT_AVAILABLE:
            vanished.add(oids[0])


def forecast(one: Sequence, points: t.Sequence[t.Sequence[float]], now: float) -> t.Optional[Forecast]:
    """When *one* is at its end at the pace since the oldest of the remembered *points* ``[when, value]``."""
    if one.last is None or not points:
        return None
    when, value = points[0]
    span, steps = now - when, (one.last - value) * (1 if one.rises else -1)
    if span < HOUR or steps <= 0:
        return None
    left = max(abs(one.limit - one.last), 0) if one.used < 1 else 0
    seconds = left / (steps / span)
    return Forecast(now + seconds, span) if seconds < FARTHEST else None


def remember(one: Sequence, points: t.Sequence[t.Sequence[float]], now: float) -> t.List[t.List[float]]:
    """*points* with the one of now; of those too old, or of a sequence that was set back, nothing is kept."""
    if one.last is None:
        return []
    sign = 1 if one.rises else -1
    if points and (one.last - points[-1][1]) * sign < 0:
        points = []
    kept = [list(point) for point in points if now - point[0] <= REMEMBER]
    if kept and now - kept[-1][0] < HOUR and len(kept) > 1:
        kept.pop()
    return [*kept, [now, one.last]][-MOST_POINTS:]


def status_of(one: Sequence, seen: t.Optional[Forecast], now: float, limits: t.Mapping[str, float]) -> str:
    """*limits*: ``warn`` and ``fail`` as shares, ``within``: seconds to its end below which it warns as well."""
    if one.used >= limits["fail"]:
        return "failed"
    soon = seen is not None and seen.span >= SURE_AFTER and seen.at - now < limits["within"]
    return "warned" if one.used >= limits["warn"] or soon else "passed"
