# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the last run saw of each log: from it follow growth, and dates when logrotate's state is lost."""

from __future__ import annotations

import time
import typing as t

from ..files import read_json, write_json
from .survey import LogFile

_DAY = 86400
# A rate from a shorter time says nothing; a base is kept that long so that frequent runs do not shorten it.
_SHORTEST = 60
_KEPT = 3600

Seen = t.Dict[str, t.Dict[str, float]]


def load(path: str) -> Seen:
    """``{path: {inode, size, at, rotated}}`` of the last run; empty when there was none or it cannot be read."""
    try:
        document = read_json(path)
    except ValueError:
        return {}
    files = document.get("files") if isinstance(document, dict) else None
    return files if isinstance(files, dict) else {}


def save(path: str, files: t.Iterable[LogFile], dates: t.Mapping[str, float], earlier: Seen, now: float) -> None:
    """Remember *files* as they are *now*, and when they were rotated last."""
    remembered: Seen = {}
    for file in files:
        base = earlier.get(file.path)
        young = base and base["inode"] == file.inode and base["size"] <= file.size and now - base["at"] < _KEPT
        entry = dict(base) if base and young else {"inode": file.inode, "size": file.size, "at": now}
        if file.path in dates:
            entry["rotated"] = dates[file.path]
        remembered[file.path] = entry
    write_json(path, {"version": 1, "files": remembered})


def grown(file: LogFile, earlier: Seen) -> float | None:
    """Bytes that *file* took on since the last run, over one rotation at most; None when that is unknown."""
    base = earlier.get(file.path)
    if base is None:
        return None
    if base["inode"] == file.inode:
        return file.size - base["size"] if file.size >= base["size"] else None
    rotated = next((a for a in file.archives if a.inode == base["inode"] and not a.compressed), None)
    return file.size + rotated.size - base["size"] if rotated and rotated.number == 1 else None


def growth_per_day(files: t.Iterable[LogFile], earlier: Seen, now: float | None = None) -> float | None:
    """Bytes a day by which *files* grow together; None when no log was watched for long enough."""
    moment = time.time() if now is None else now
    rates: list[float] = []
    for file in files:
        taken = grown(file, earlier)
        if taken is not None and moment - earlier[file.path]["at"] >= _SHORTEST:
            rates.append(taken * _DAY / (moment - earlier[file.path]["at"]))
    return sum(rates) if rates else None
