# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which indexes are worth rebuilding, in which order, and why the others are left. Pure: nothing is asked or done."""

from __future__ import annotations

import typing as t

from ..bloat.measure import IndexBloat
from ..bloat.reach import MEASURABLE
from ..database.rights import quoted
from ..database.scope import matches
from ..quantities import human_bytes, human_seconds
from .memory import Memory
from .settings import Settings

_RANK = {"none": 0, "low": 1, "medium": 2, "high": 3}
_BUILT_IN = "it belongs to a system catalog, whose indexes cannot be rebuilt while others use them"


class Traits(t.NamedTuple):
    """What else counts for an index: facts of the catalogs, and what the role may do."""

    is_exclusion: bool = False
    may_reindex: bool = True
    advice: str = ""  # which right to give where it may not
    unique_reason: str = ""  # why a unique index is not to be rebuilt, by the policy
    unique_unknown: bool = False  # whether that is only because something cannot be seen


class Task(t.NamedTuple):
    """An index that is worth rebuilding."""

    target: IndexBloat
    bloat_ratio: float
    predicted_bytes: int
    seconds: float

    @property
    def gain(self) -> int:
        return self.target.size_bytes - self.predicted_bytes

    @property
    def name(self) -> str:
        return name_of(self.target)


class Left(t.NamedTuple):
    """An index that is left as it is although it may be bloated, and why."""

    target: IndexBloat
    reason: str
    bloat_ratio: t.Optional[float]
    gain: int
    wanted: bool = True  # whether somebody should see to it that it can be rebuilt
    unsound: bool = False  # whether the rebuild has found damage
    unmeasured: bool = False  # whether it could be known better, with a right or an extension that is missing

    @property
    def name(self) -> str:
        return name_of(self.target)


def name_of(index: IndexBloat) -> str:
    """``learning.public.student_name`` with quotes where SQL needs them: the database, the schema and the index."""
    return ".".join(quoted(part) for part in (index.database, index.schema, index.name))


def judge(index: IndexBloat, traits: Traits, settings: Settings, memory: Memory) -> t.Union[Task, Left, None]:
    """The task to rebuild *index*, or why it is left; None when it is healthy, or too small to win anything."""
    if index.access_method == "brin" or not index.is_valid:
        return None
    ratio, predicted = memory.corrected(index)
    gain = index.size_bytes - predicted
    if ratio is None:
        if index.size_bytes < settings.min_gain:
            return None
        # A GIN index seen for the first time, say, has nothing yet to be compared with: nobody can do anything.
        unread = index.method == "none" and index.access_method in MEASURABLE
        return Left(index, index.reason, None, 0, wanted=unread, unmeasured=not unread and lacks_means(index))
    if ratio < settings.min_bloat_ratio or gain < settings.min_gain:
        return None
    reason, wanted = why_left(index, traits, settings)
    if reason:
        guessed = _RANK[index.confidence] < _RANK[settings.min_confidence] and lacks_means(index)
        return Left(index, reason, ratio, gain, wanted, unmeasured=guessed)
    seconds = memory.predicted_seconds(index.access_method, index.table_bytes, predicted)
    return Task(index, ratio, predicted, seconds)


def lacks_means(index: IndexBloat) -> bool:
    """Whether *index* is of a kind that can be measured, but was estimated. (Of a GIN nothing better is to be had.)"""
    return (
        index.access_method in MEASURABLE and index.access_method != "gin" and index.method in ("baseline", "estimate")
    )


def why_left(index: IndexBloat, traits: Traits, settings: Settings) -> tuple[str, bool]:
    """Why a bloated index is not to be rebuilt here, empty when it is; and whether somebody should change that."""
    if matches(f"{index.schema}.{index.name}", settings.exclude_indexes):
        return "exclude_indexes names it", False
    if index.is_catalog:
        return _BUILT_IN, False
    if traits.is_exclusion:
        return "it enforces an exclusion constraint, and such indexes cannot be rebuilt while others use them", False
    if _RANK[index.confidence] < _RANK[settings.min_confidence]:
        return f"its bloat is known with {index.confidence} confidence only: {index.reason or index.method}", False
    if not traits.may_reindex:
        return f"the role may not rebuild it: {traits.advice}", True
    return (traits.unique_reason, traits.unique_unknown) if index.is_unique else ("", False)


def in_order(tasks: t.Iterable[Task]) -> list[Task]:
    """The *tasks*, those first that win most bytes in a second."""
    return sorted(tasks, key=lambda task: (-task.gain / max(task.seconds, 0.001), task.name))


def within(tasks: t.Sequence[Task], seconds: float) -> tuple[list[Task], list[Left]]:
    """Those of *tasks*, in this order, that can all be finished within *seconds*, and those that cannot."""
    fitting: list[Task] = []
    late: list[Left] = []
    for task in tasks:
        if task.seconds <= seconds:
            seconds -= task.seconds
            fitting.append(task)
        else:
            late.append(left(task, too_long(task, seconds)))
    return fitting, late


def left(task: Task, reason: str) -> Left:
    return Left(task.target, reason, task.bloat_ratio, task.gain)


def too_long(task: Task, seconds_left: float) -> str:
    return (
        f"it would take about {human_seconds(task.seconds)}, and {human_seconds(max(0.0, seconds_left))} "
        "of the window will be left"
    )


def describe_task(task: Task) -> str:
    """``62 % bloat, about 120.0 MiB to win in 4.0 s``"""
    return f"{task.bloat_ratio:.0%} bloat, about {human_bytes(task.gain)} to win in {human_seconds(task.seconds)}"


def as_evidence(one: t.Union[Task, Left]) -> dict[str, t.Any]:
    """*one* as JSON values, for the result."""
    shown: dict[str, t.Any] = {
        "index": one.name,
        "table": f"{one.target.table_schema}.{one.target.table}",
        "size_bytes": one.target.size_bytes,
        "bloat_ratio": None if one.bloat_ratio is None else round(one.bloat_ratio, 3),
        "gain_bytes": one.gain,
        "measured_by": one.target.method,
        "confidence": one.target.confidence,
    }
    if isinstance(one, Left):
        return {**shown, "reason": one.reason}
    return {**shown, "predicted_seconds": round(one.seconds, 2)}
