# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What earlier rebuilds taught: how fast this host rebuilds, and which indexes do not get smaller by it.

Losing it costs a worse forecast and one rebuild in vain, nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
import typing as t

from ..bloat.measure import IndexBloat
from ..bloat.remembered import rows_of
from ..files import read_json, write_json

FORMAT = 1
# Of what a rebuild reads and writes, in bytes a second; modest, so that a first run rather skips than overruns.
DEFAULT_SPEED = 50_000_000
# Starting, waiting for short transactions, committing five times.
OVERHEAD = 0.1
# Smaller rebuilds tell about the overhead, not about the speed.
_LEARN_FROM = 8 * 1024**2
_WEIGHT = 0.5
# Pages of a fresh index are never full to the last byte: less bloat than this after a rebuild is none.
_FRESH = 0.1


class Memory:
    """What is remembered in one file; :meth:`save` writes what was learned."""

    def __init__(self, path: str = "") -> None:
        self.path = path
        self._speed: dict[str, float] = {}
        self._settled: dict[str, dict[str, t.Any]] = {}
        self._changed = False
        if path:
            self._load()

    @classmethod
    def load(cls, state_dir: str, cluster: str) -> Memory:
        """What is remembered in *state_dir* of the cluster with this system identifier."""
        return cls(os.path.join(state_dir, "reindex", f"{cluster}.json"))

    def predicted_seconds(self, access_method: str, table_bytes: int, new_bytes: int) -> float:
        """How long a rebuild to *new_bytes* will take: learned from rebuilds on this host, else by a modest default."""
        speed = self._speed.get(access_method, DEFAULT_SPEED)
        return OVERHEAD + cost(table_bytes, new_bytes) / speed

    def learn_speed(self, access_method: str, table_bytes: int, new_bytes: int, seconds: float) -> None:
        """Remember that such a rebuild took *seconds*, without what it waited for others."""
        work = cost(table_bytes, new_bytes)
        if work < _LEARN_FROM or seconds <= 0:
            return
        seen = work / max(seconds - OVERHEAD, seconds / 10)
        known = self._speed.get(access_method)
        self._speed[access_method] = seen if known is None else known * (1 - _WEIGHT) + seen * _WEIGHT
        self._changed = True

    def corrected(self, index: IndexBloat) -> tuple[t.Optional[float], int]:
        """Bloat and size after a rebuild, as measured, but by what a rebuild of this index has really reached.

        What measured as 40 % right after a rebuild has no bloat at 40 %, and 50 % at 70 %.
        """
        if index.bloat_ratio is None:
            return None, index.predicted_bytes
        ratio, predicted = index.bloat_ratio, index.predicted_bytes
        entry = self._settled.get(_key(index))
        if entry is not None and entry["definition"] == _digest(index):
            if entry["method"] == index.method:
                ratio = max(0.0, 1 - (1 - ratio) / (1 - entry["ratio"]))
                predicted = max(predicted, int(index.size_bytes * (1 - ratio)))
            predicted = max(predicted, int(entry["row_bytes"] * rows_of(index)))
        if predicted > index.predicted_bytes:
            predicted = min(predicted, index.size_bytes)
            ratio = min(ratio, 1 - predicted / max(1, index.size_bytes))
        return ratio, predicted

    def settle(self, index: IndexBloat, disappointing: bool = False) -> bool:
        """Take *index* as it is for free of bloat: it was just rebuilt. Returns whether that had to be remembered.

        *disappointing*: it won much less than was foreseen, so what it takes for a row is remembered too.
        """
        key = _key(index)
        ratio = index.bloat_ratio if index.bloat_ratio is not None and _FRESH <= index.bloat_ratio < 1 else 0.0
        rows = rows_of(index)
        row_bytes = index.size_bytes / rows if disappointing and rows > 0 else 0.0
        if not ratio and not row_bytes:
            self._changed |= self._settled.pop(key, None) is not None
            return False
        entry = {"definition": _digest(index), "method": index.method, "ratio": ratio, "row_bytes": row_bytes}
        self._changed |= self._settled.get(key) != entry
        self._settled[key] = entry
        return True

    def save(self) -> None:
        if not self._changed or not self.path:
            return
        os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
        write_json(self.path, {"format": FORMAT, "speed": self._speed, "settled": self._settled})
        self._changed = False

    def _load(self) -> None:
        try:
            document = read_json(self.path)
            if not isinstance(document, dict) or document.get("format") != FORMAT:
                return
            speed = {str(name): float(speed) for name, speed in document["speed"].items() if float(speed) > 0}
            settled = {
                str(key): {
                    "definition": str(entry["definition"]),
                    "method": str(entry["method"]),
                    "ratio": float(entry["ratio"]),
                    "row_bytes": float(entry["row_bytes"]),
                }
                for key, entry in document["settled"].items()
                if 0 <= float(entry["ratio"]) < 1 and float(entry["row_bytes"]) >= 0
            }
        except (ValueError, KeyError, TypeError, AttributeError):
            return
        self._speed, self._settled = speed, settled


def cost(table_bytes: int, new_bytes: int) -> int:
    """What a rebuild reads and writes: the table twice, the new index, as much WAL, and the sort."""
    return 2 * table_bytes + 3 * new_bytes


def _key(index: IndexBloat) -> str:
    # By name, for a rebuild gives the index another OID.
    return json.dumps([index.database, index.schema, index.name])


def _digest(index: IndexBloat) -> str:
    return hashlib.sha256(index.definition.encode()).hexdigest()
