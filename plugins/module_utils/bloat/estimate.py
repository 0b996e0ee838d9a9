# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The size that a btree would have, from the statistics of its columns: for servers without pgstattuple.

It is known to be far off for keys that repeat (they are stored once), so it is only made for unique keys.
"""

from __future__ import annotations

import math
import typing as t

from .. import postgresql
from .model import Finding, IndexFacts, nothing

# The stored size of longer keys is not what the statistics say: they are compressed.
_MAX_WIDTH = 400
_TUPLE_HEADER = 8
_ITEM_POINTER = 4
_PAGE_OVERHEAD = 40
_PIVOTS_PER_PAGE = 200  # fewer than an inner page has, so that the prediction is rather too large
# How far the size may be from that at the last VACUUM or ANALYZE for the count of rows to hold.
_STALE = 0.1

_COLUMNS = """
SELECT a.attnum AS position, t.typlen AS length, t.typalign::text AS alignment, k.attnotnull AS not_null,
       s.avg_width AS width, s.null_frac::float8 AS nulls
FROM pg_attribute a
JOIN pg_index x ON x.indexrelid = a.attrelid
JOIN pg_attribute k ON k.attrelid = x.indrelid AND k.attnum = x.indkey[a.attnum - 1]
JOIN pg_type t ON t.oid = a.atttypid
JOIN pg_class c ON c.oid = x.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_stats s ON s.schemaname = n.nspname AND s.tablename = c.relname AND s.attname = k.attname
                    AND s.inherited = false
WHERE a.attrelid = %s::oid ORDER BY a.attnum
"""


def columns_of(connection: t.Any, facts: IndexFacts) -> t.List[t.Dict[str, t.Any]]:
    """The columns of the index, with what the statistics that the role may see say of each."""
    return postgresql.query(connection, _COLUMNS, [facts.oid])


def why_not(facts: IndexFacts, columns: t.Sequence[t.Mapping[str, t.Any]]) -> str:
    """Why the estimate would not be worth anything for this index; empty when it is."""
    if facts.access_method != "btree" or not facts.is_unique:
        return "its keys may repeat"
    if facts.has_expressions or facts.has_predicate:
        return "there are no statistics of expressions and parts of a table"
    if facts.tuples < 0 or abs(facts.pages * facts.block_size - facts.size_bytes) > _STALE * facts.size_bytes:
        return "its statistics are older than its content: ANALYZE its table"
    for column in columns:
        if column["length"] < 0 and column["width"] is None:
            return "there are no statistics of its columns that the role may see: ANALYZE its table"
        if not column["not_null"] and column["nulls"] != 0:
            return "nulls repeat in it"
        if column["length"] < 0 and column["width"] > _MAX_WIDTH:
            return "its keys are long, so they may be compressed"
    return ""


def key_bytes(columns: t.Sequence[t.Mapping[str, t.Any]]) -> float:
    """How long an entry of the index is, its header and its pointer included."""
    size = 0.0
    for column in columns:
        if column["length"] > 0:
            size = _aligned(size, {"c": 1, "s": 2, "i": 4, "d": 8}[column["alignment"]]) + column["length"]
        else:
            size += column["width"]
    return _aligned(_TUPLE_HEADER + size, 8) + _ITEM_POINTER


def judge(facts: IndexFacts, columns: t.Sequence[t.Mapping[str, t.Any]]) -> Finding:
    """The bloat by this estimate; method ``none`` with the reason where it cannot be made."""
    reason = why_not(facts, columns)
    if reason:
        return nothing(facts.size_bytes, reason)
    space = (facts.block_size - _PAGE_OVERHEAD) * facts.fillfactor / 100
    leaf = max(1, math.ceil(facts.tuples * key_bytes(columns) / space))
    predicted = (1 + leaf + (math.ceil(leaf / _PIVOTS_PER_PAGE) if leaf > 1 else 0)) * facts.block_size
    ratio = max(0.0, 1 - predicted / facts.size_bytes) if facts.size_bytes else 0.0
    return Finding(ratio, predicted, None, "estimate", "low", "estimated from the statistics of its columns")


def _aligned(size: float, to: int) -> float:
    return math.ceil(size / to) * to
