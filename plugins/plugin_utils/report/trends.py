# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What of the stored metrics is worth a picture, in which order, and what of them is told in words."""

from __future__ import annotations

import math
import re
from typing import Any

from .text import counted, parse_time, quantity

Points = list[tuple[float, float]]
Line = tuple[str, Points]  # host, its (POSIX time, value) in order of time

# More lines than these cannot be told apart: they become one bundle with its highest line marked.
MOST_LINES = 4
# A change that is smaller than this share of the largest value looks like a flat line …
SMALLEST_SHARE = 0.02
# … and one that is smaller than this, by unit, means nothing to anybody.
SMALLEST_CHANGE = {"seconds": 0.02, "bytes": 4096, "ratio": 0.005}

# What an operator asks for first: will the disk do, how long does a restore take, how do the backups grow.
_MATTERS = [
    re.compile(pattern)
    for pattern in (
        r"^(disk|inodes)_used",
        r"^(rto|rpo|restore\w*)_seconds|replication_lag",
        r"^(backup|repository|database|dump)\w*_bytes|^backup\w*_seconds",
        r"http_seconds|query_seconds|latency",
        r"log_lines|^log_bytes|freed_bytes|load|memory",
    )
]


def charts_of(trends: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """``[{"activity", "metric", "unit", "lines", "legend", "summary"}]``, one for each metric of an activity."""
    groups: dict[tuple[str, str, str], list[Line]] = {}
    for trend, points in measured_lines(trends):
        groups.setdefault((trend["activity"], trend["metric"], trend["unit"]), []).append((trend["host"], points))
    return [_chart(key, lines) for key, lines in groups.items()]


def measured_lines(trends: list[dict[str, Any]]) -> list[tuple[dict[str, Any], Points]]:
    """Each trend that has points, with them."""
    ordered = sorted(trends, key=lambda trend: (trend["activity"], trend["metric"], trend["host"]))
    return [(trend, points) for trend in ordered if (points := _points(trend["points"]))]


def most_telling(charts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of *charts* that change visibly: what matters most first, and of that what changed most."""
    changing = [chart for chart in charts if any(_varies(points, chart["unit"]) for _host, points in chart["lines"])]
    return sorted(changing, key=lambda chart: (_rank(chart["metric"]), -_change(chart), chart["metric"]))


def _varies(points: Points, unit: str) -> bool:
    values = [value for _when, value in points]
    change = max(values) - min(values)
    return change >= SMALLEST_CHANGE.get(unit, 0.0) and _share(points) >= SMALLEST_SHARE


def _share(points: Points) -> float:
    """How much changed, as a share of the largest value: 0 for a flat line, 1 for one that came from nothing."""
    values = [value for _when, value in points]
    largest = max(map(abs, values))
    return (max(values) - min(values)) / largest if largest else 0.0


def _rank(metric: str) -> int:
    return next((rank for rank, pattern in enumerate(_MATTERS) if pattern.search(metric)), len(_MATTERS))


def _change(chart: dict[str, Any]) -> float:
    return max(_share(points) for _host, points in chart["lines"])


def _chart(key: tuple[str, str, str], lines: list[Line]) -> dict[str, Any]:
    activity, metric, unit = key
    lines = sorted(lines, key=lambda line: -line[1][-1][1])
    legend = [
        {"number": number, "host": host, "latest": quantity(points[-1][1], unit)}
        for number, (host, points) in enumerate(lines, 1)
    ]
    return {
        "activity": activity,
        "metric": metric,
        "unit": unit,
        "lines": lines,
        "legend": legend if 1 < len(lines) <= MOST_LINES else [],
        "summary": _summary(lines, unit),
        "short": _short(lines, unit),
    }


def _points(points: list[Any]) -> Points:
    """(POSIX time, value) in order of time, without what is no time or no number."""
    found = []
    for iso, value in points:
        when = parse_time(iso)
        if when and isinstance(value, (int, float)) and math.isfinite(value):
            found.append((when.timestamp(), float(value)))
    return sorted(found)


def _summary(lines: list[Line], unit: str) -> str:
    """The chart in words, for who cannot or does not want to see it."""
    if len(lines) > 1:
        host, points = lines[0]
        latest = sorted(points[-1][1] for _host, points in lines)
        middle = quantity(latest[len(latest) // 2], unit)
        return f"{len(lines)} hosts. Highest now {quantity(points[-1][1], unit)} on {host}, middle {middle}."
    values = [value for _when, value in lines[0][1]]
    if len(values) == 1:
        return f"{quantity(values[0], unit)}, measured once."
    span = f"between {quantity(min(values), unit)} and {quantity(max(values), unit)}"
    return f"Now {quantity(values[-1], unit)}; {span} in {counted(len(values), 'measurement')}."


def _short(lines: list[Line], unit: str) -> str:
    """The latest values in a word or two: ``40 %``, or ``40 % to 60 % on 3 hosts``."""
    latest = [points[-1][1] for _host, points in lines]
    low, high = quantity(min(latest), unit), quantity(max(latest), unit)
    span = low if low == high else f"{low} to {high}"
    return f"{span} on {len(lines)} hosts" if len(lines) > 1 else span
