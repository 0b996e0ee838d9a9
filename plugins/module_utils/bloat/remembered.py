# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Measurements that are kept between runs, so that an index that has not changed is not measured again.

They are a cache: losing the file costs time, never truth. What is kept besides is how compact an index was when it was
new (its baseline), which is all that can tell the bloat of some kinds of index.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
import typing as t

from .. import postgresql
from ..errors import MaintenanceError
from ..files import write_json
from .model import Finding, Index, IndexBloat, IndexFacts

FORMAT = 1
_MAX_BYTES = 64 * 1024**2
# Even what seems unchanged is looked at again after a month.
MAX_AGE = 30 * 86400.0

REBUILT = "rebuild"
FIRST_SIGHT = "first sight"

Way = str
_Entries = t.Dict[str, t.Dict[str, t.Any]]


class Baseline(t.NamedTuple):
    """How compact an index was: bytes for each row, and how full its pages were (None where that is not measured)."""

    bytes_per_tuple: t.Optional[float]
    density: t.Optional[float]
    source: str


def cluster_of(connection: t.Any) -> str:
    """What tells the cluster of *connection* from others whose measurements are kept in the same directory."""
    return str(postgresql.value(connection, "SELECT system_identifier FROM pg_control_system()"))


class Remembered:
    """What earlier runs measured, in one file for each cluster; :meth:`save` writes what this run added."""

    def __init__(self, path: str = "", now: t.Callable[[], float] = time.time) -> None:
        self.path = path
        self.remark = ""  # why the file could not be used
        self._now = now
        self._measured: _Entries = {}
        self._baselines: _Entries = {}
        self._changed: t.Set[t.Tuple[str, str]] = set()
        if path:
            self._measured, self._baselines = self._load()

    @classmethod
    def load(cls, state_dir: str, cluster: str) -> Remembered:
        """What is remembered in *state_dir* of the *cluster* (see :func:`cluster_of`)."""
        name = "".join(letter for letter in cluster if letter.isalnum()) or "cluster"
        return cls(os.path.join(state_dir, "bloat", f"{name}.json"))

    def finding(self, facts: IndexFacts, way: Way) -> t.Optional[Finding]:
        """What *way* of measuring said of an index that has not changed since; else None."""
        entry = self._measured.get(_key(facts))
        if entry is None or not facts.state or entry["state"] != facts.state or entry["way"] != way:
            return None
        if not 0 <= self._now() - entry["at"] <= MAX_AGE:
            return None
        return Finding(*entry["finding"])

    def keep(self, facts: IndexFacts, way: Way, finding: Finding) -> None:
        """Remember *finding*, unless there is no telling whether the index has changed when it is next looked at."""
        if facts.state and finding.method != "none":
            entry = {"state": facts.state, "way": way, "at": self._now(), "finding": list(finding)}
            self._put("measured", _key(facts), entry)

    def baseline(self, index: Index) -> t.Optional[Baseline]:
        """How compact the index of this name and definition was when that was learned."""
        entry = self._baselines.get(_name(index))
        if entry is None or entry["definition"] != _digest(index):
            return None
        return Baseline(entry["bytes_per_tuple"], entry["density"], entry["source"])

    def learn(self, index: Index, density: t.Optional[float] = None, source: str = REBUILT) -> None:
        """Remember that *index* is as compact as it can be: it was just rebuilt.

        At first sight (*source*) that is not known, so whatever is more compact later takes its place.
        """
        if not index.definition:
            return
        if isinstance(index, IndexBloat) and density is None:
            density = index.density
        rows = rows_of(index)
        ratio = index.size_bytes / rows if rows > 0 else None
        known = self.baseline(index)
        if known is not None and source != REBUILT:
            ratio, density, source = _least(known.bytes_per_tuple, ratio), _most(known.density, density), known.source
            if Baseline(ratio, density, source) == known:
                return
        entry = {"definition": _digest(index), "bytes_per_tuple": ratio, "density": density, "source": source}
        self._put("baselines", _name(index), entry)

    def forget_others(self, database: str, database_oid: int, listed: t.Sequence[IndexFacts]) -> None:
        """Forget the indexes of the database that are not among those *listed*: they are gone."""
        there, names = {_key(facts) for facts in listed}, {_name(facts) for facts in listed}
        for key in [key for key in self._measured if key.startswith(f"{database_oid}/") and key not in there]:
            self._drop("measured", key)
        for key in [key for key in self._baselines if json.loads(key)[0] == database and key not in names]:
            self._drop("baselines", key)

    def save(self) -> None:
        """Write what was added, whole or not at all, into a file that its owner alone may read. Raises OSError.

        What another process has written meanwhile is kept.
        """
        if not self._changed or not self.path:
            return
        os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
        measured, baselines = self._load()
        mine = {"measured": (measured, self._measured), "baselines": (baselines, self._baselines)}
        for kind, key in self._changed:
            theirs, ours = mine[kind]
            if key in ours:
                theirs[key] = ours[key]
            else:
                theirs.pop(key, None)
        measured = {key: entry for key, entry in measured.items() if self._now() - entry["at"] <= MAX_AGE}
        write_json(self.path, {"format": FORMAT, "measured": measured, "baselines": baselines})
        self._changed.clear()

    def _put(self, kind: str, key: str, entry: t.Dict[str, t.Any]) -> None:
        {"measured": self._measured, "baselines": self._baselines}[kind][key] = entry
        self._changed.add((kind, key))

    def _drop(self, kind: str, key: str) -> None:
        del {"measured": self._measured, "baselines": self._baselines}[kind][key]
        self._changed.add((kind, key))

    def _load(self) -> t.Tuple[_Entries, _Entries]:
        """The entries in the file; none, with a remark, when it cannot be trusted."""
        try:
            document = _read(self.path)
            return _checked(document, "measured", _MEASURED), _checked(document, "baselines", _BASELINE)
        except FileNotFoundError:
            return {}, {}
        except (OSError, ValueError, MaintenanceError) as error:
            words = error.observed if isinstance(error, MaintenanceError) else str(error)
            self.remark = f"{self.path} is not used, so all indexes are measured: {' '.join(words.split())[:200]}"
            return {}, {}


def rows_of(index: Index) -> float:
    """By how many rows its size is divided: its own, but those of the table for a GIN, which counts keys."""
    return index.table_tuples if index.access_method == "gin" else index.tuples


_Shape = t.Dict[str, t.Tuple[type, ...]]
_NUMBER = (int, float)
_MEASURED: _Shape = {"state": (str,), "way": (str,), "at": _NUMBER, "finding": (list,)}
_OPTIONAL = (int, float, type(None))
_BASELINE: _Shape = {"definition": (str,), "bytes_per_tuple": _OPTIONAL, "density": _OPTIONAL, "source": (str,)}


def _read(path: str) -> t.Any:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, encoding="utf-8") as stream:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_uid not in (os.geteuid(), 0) or status.st_mode & 0o022:
            raise ValueError("it is not a file that only its owner may write to")
        if status.st_size > _MAX_BYTES:
            raise ValueError(f"it is larger than {_MAX_BYTES} bytes")
        return json.load(stream)


def _checked(document: t.Any, kind: str, shape: _Shape) -> _Entries:
    """The entries of one *kind*, each of the right *shape*; raises ValueError otherwise."""
    if not isinstance(document, dict) or document.get("format") != FORMAT or not isinstance(document.get(kind), dict):
        raise ValueError("it is of another format")
    entries: _Entries = document[kind]
    for key, entry in entries.items():
        good = isinstance(entry, dict) and all(isinstance(entry.get(name), types) for name, types in shape.items())
        if not good or (kind == "measured" and not _is_finding(entry["finding"])):
            raise ValueError(f"its entry {key} is damaged")
        if kind == "baselines" and not _is_name(key):
            raise ValueError(f"its entry {key} is damaged")
    return entries


def _is_finding(values: t.List[t.Any]) -> bool:
    if len(values) != len(Finding._fields):
        return False
    finding = Finding(*values)
    return (
        isinstance(finding.bloat_ratio, _OPTIONAL)
        and isinstance(finding.predicted_bytes, int)
        and isinstance(finding.density, _OPTIONAL)
        and isinstance(finding.margin, _NUMBER)
        and all(isinstance(word, str) for word in (finding.method, finding.confidence, finding.reason))
    )


def _is_name(key: str) -> bool:
    try:
        parts = json.loads(key)
    except ValueError:
        return False
    return isinstance(parts, list) and len(parts) == 3


def _key(facts: IndexFacts) -> str:
    return f"{facts.database_oid}/{facts.oid}"


def _name(index: Index) -> str:
    # Not by its OID: REINDEX CONCURRENTLY gives the index another one.
    return json.dumps([index.database, index.schema, index.name])


def _digest(index: Index) -> str:
    return hashlib.sha256(index.definition.encode()).hexdigest()


def _least(one: t.Optional[float], other: t.Optional[float]) -> t.Optional[float]:
    return min((number for number in (one, other) if number is not None), default=None)


def _most(one: t.Optional[float], other: t.Optional[float]) -> t.Optional[float]:
    return max((number for number in (one, other) if number is not None), default=None)
