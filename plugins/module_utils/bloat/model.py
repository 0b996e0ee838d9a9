# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is known of an index and its bloat, and how closely to look."""

from __future__ import annotations

import dataclasses
import typing as t

METHODS = (
    "pgstatindex",
    "sampled",
    "pgstattuple",
    "pgstathashindex",
    "baseline",
    "estimate",
    "small",
    "none",
)
CONFIDENCES = ("high", "medium", "low", "none")


class BloatSettings(t.NamedTuple):
    """How closely to look. Sizes in bytes, times in milliseconds."""

    min_size_bytes: int = 0  # smaller indexes are listed, but not measured
    sample_above_bytes: int = 64 * 1024**2
    sample_pages: int = 400
    lock_timeout_ms: int = 500  # how long one measurement may wait for a lock
    timeout_ms: int = 10_000  # how long one may hold its own (ACCESS SHARE) lock
    catalogs: bool = True  # list the indexes of system catalogs too
    shared_catalogs: bool = False  # and of those that all databases share
    tables: t.Tuple[str, ...] = ("*",)  # patterns on schema.table
    exclude_tables: t.Tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Index:
    """What the catalogs say of an index and its table, and what every report of it shows."""

    database: str
    schema: str
    name: str
    oid: int
    table_schema: str
    table: str
    table_oid: int
    table_bytes: int
    access_method: str
    size_bytes: int
    fillfactor: int
    tablespace: str
    is_unique: bool
    is_primary: bool
    is_constraint: bool
    has_expressions: bool
    has_predicate: bool
    is_valid: bool
    is_ready: bool
    is_toast: bool
    is_catalog: bool
    definition: str
    tuples: float  # by the last VACUUM, ANALYZE or build; below 0 where it is not known
    table_tuples: float


@dataclasses.dataclass(frozen=True)
class IndexFacts(Index):
    """An index before anything is read from it, with what tells how it can be measured."""

    database_oid: int
    is_unlogged: bool
    pages: int  # by the last VACUUM, ANALYZE or build
    block_size: int
    being_built: bool
    locked: bool  # somebody has, or waits for, a lock under which not even its size can be asked
    state: str  # differs from an earlier one when the content of the index may differ


class Finding(t.NamedTuple):
    """What one way of measuring says of one index; ``predicted_bytes`` is its size after a rebuild."""

    bloat_ratio: t.Optional[float]
    predicted_bytes: int
    density: t.Optional[float]
    method: str
    confidence: str
    reason: str = ""
    margin: float = 0.0  # the ratio is right within this, in 95 of 100 cases


@dataclasses.dataclass(frozen=True)
class IndexBloat(Index):
    """An index and its bloat.

    ``bloat_ratio`` is the share (0 to 1) of the space for keys that a rebuild would give back, None when it is not
    known. ``wasted_bytes`` is what a rebuild wins, ``predicted_bytes`` the size after it; without a ratio they are 0
    and the size. ``reason`` says where the figures come from, or why there are none.
    """

    bloat_ratio: t.Optional[float]
    wasted_bytes: int
    predicted_bytes: int
    density: t.Optional[float]
    method: str
    confidence: str
    reason: str
    margin: float = 0.0


def joined(facts: IndexFacts, finding: Finding) -> IndexBloat:
    """*facts* and what was *found* as one."""
    shared = {field.name: getattr(facts, field.name) for field in dataclasses.fields(Index)}
    found = {name: getattr(finding, name) for name in Finding._fields}
    predicted = min(max(finding.predicted_bytes, 0), facts.size_bytes)
    found.update(predicted_bytes=predicted, wasted_bytes=facts.size_bytes - predicted)
    return IndexBloat(**shared, **found)


def nothing(size_bytes: int, reason: str, method: str = "none") -> Finding:
    """No measurement, and why."""
    return Finding(None, size_bytes, None, method, "none", reason)
