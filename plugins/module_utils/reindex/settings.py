# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a rebuild of indexes is told: when one is worth it, how long it may take, whom it must not hold up."""

from __future__ import annotations

import typing as t

from ..bloat.measure import BloatSettings
from ..database.budget import read_max_block
from ..database.extensions import EXTENSION_OPTIONS
from ..database.scope import SCOPE_OPTIONS, TABLE_OPTIONS
from ..options import read_duration, read_size, refuse

REINDEX_OPTIONS: dict[str, dict[str, t.Any]] = {
    **SCOPE_OPTIONS,
    **TABLE_OPTIONS,
    **EXTENSION_OPTIONS,
    "exclude_indexes": {"type": "list", "elements": "str", "default": []},
    "min_bloat_ratio": {"type": "float", "default": 0.3},
    "min_gain": {"type": "str", "default": "3MB"},
    "min_confidence": {"type": "str", "default": "medium", "choices": ["high", "medium", "low"]},
    "unique_indexes": {"type": "str", "default": "auto", "choices": ["auto", "always", "never"]},
    "time_budget": {"type": "str", "default": "1h"},
    "retry_for": {"type": "str", "default": "5m"},
    "max_block": {"type": "str", "default": "1s"},
    "max_replica_lag": {"type": "str", "default": "256MiB"},
    "min_free_bytes": {"type": "str", "default": "256MiB"},
    "amcheck": {"type": "bool", "default": True},
    "heap_all_indexed": {"type": "bool", "default": False},
}

# A transaction that has been open for longer is not waited for: the rebuild comes back later instead.
OLD_TRANSACTION = 2.0


# Of larger indexes some pages tell enough: to read them whole from disk would take longer than many a rebuild.
SAMPLE_ABOVE = 16 * 1024**2


class Settings(t.NamedTuple):
    """The options, in seconds and bytes."""

    tables: t.Sequence[str] = ("*",)
    exclude_tables: t.Sequence[str] = ()
    exclude_indexes: t.Sequence[str] = ()
    min_bloat_ratio: float = 0.3
    min_gain: int = 3_000_000
    min_confidence: str = "medium"
    unique_indexes: str = "auto"
    time_budget: float = 0.0
    retry_for: float = 0.0
    max_block: float = 1.0
    max_replica_lag: int = 256 * 1024**2
    min_free_bytes: int = 0
    amcheck: bool = True
    heap_all_indexed: bool = False
    create_extensions: bool = True

    def bloat(self) -> BloatSettings:
        """How closely to look at indexes: none that is smaller than the gain that is asked for can win it."""
        return BloatSettings(
            min_size_bytes=self.min_gain,
            sample_above_bytes=SAMPLE_ABOVE,
            tables=tuple(self.tables),
            exclude_tables=tuple(self.exclude_tables),
        )


def read_settings(params: t.Mapping[str, t.Any]) -> Settings:
    """The settings that the options in *params* give; raises MaintenanceError that names what makes no sense."""
    values = {name: params[name] for name in Settings._fields}
    for name in ("time_budget", "retry_for"):
        values[name] = read_duration(params, name)
    values["max_block"] = read_max_block(params)
    for name in ("min_gain", "max_replica_lag", "min_free_bytes"):
        values[name] = read_size(params, name)
    ratio = params["min_bloat_ratio"]
    if not 0 < ratio < 1:
        refuse("min_bloat_ratio", expected="a share between 0 and 1", observed=ratio, advice="Write 0.3 for 30 %.")
    return Settings(**values)
