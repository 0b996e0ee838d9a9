# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Trends of stored metrics as small pictures: inline SVG in the page's colours, equal for equal data."""

from __future__ import annotations

import atexit
import io
import math
import os
import re
import shutil
import tempfile
from typing import Any

from markupsafe import Markup

from .text import counted, day, enumeration, parse_time, quantity, visible
from .view import words

# A page with more is no longer looked at, and each takes about 30 ms; the others are told in words.
MOST_PICTURES = 48
# More lines than these cannot be told apart: they become one bundle with its highest line marked.
MOST_LINES = 4
DASHES = ("solid", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))

# Matplotlib writes these colours, the page replaces them by its own, for light, dark and paper.
_INK, _RULE, _BUNDLE = "#0a0101", "#0a0102", "#0a0103"
_LINES = ("#0a0111", "#0a0112", "#0a0113", "#0a0114")
_COLOURS = {
    _INK: "var(--muted)",
    _RULE: "var(--rule)",
    _BUNDLE: "var(--bundle)",
    **{colour: f"var(--line{number})" for number, colour in enumerate(_LINES, 1)},
}

_SCALES = {
    "bytes": ((1024**4, "TiB"), (1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB"), (1, "B")),
    "seconds": ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"), (0.001, "ms")),
}

Points = list[tuple[float, float]]
Line = tuple[str, Points]  # host, its (POSIX time, value) in order of time


def draw(trends: list[dict[str, Any]]) -> dict[str, Any]:
    """``{"charts": [{"activity", "metric", "svg", "legend", "summary"}], "note"}``, a chart a metric and activity.

    Without Matplotlib, or when it fails, *svg* is empty and *note* says why: no report is lost for want of a picture.
    """
    charts = [_chart(key, lines) for key, lines in _grouped(trends).items()]
    note = ""
    try:
        for chart in charts[:MOST_PICTURES]:
            chart["svg"] = Markup(_picture(chart))  # noqa: S704 made here; its only foreign text is escaped in _picture
    except ImportError:
        note = "There are no pictures because Matplotlib is not installed on the control node: pip install matplotlib."
    except Exception as error:
        note = f"The pictures could not be drawn ({type(error).__name__}: {error})."
    if len(charts) > MOST_PICTURES and not note:
        note = f"Pictures of the first {MOST_PICTURES} metrics; the others in words."
    return {"charts": charts, "note": note}


def measured_lines(trends: list[dict[str, Any]]) -> list[tuple[dict[str, Any], Points]]:
    """Each trend that has points, with them."""
    ordered = sorted(trends, key=lambda trend: (trend["activity"], trend["metric"], trend["host"]))
    return [(trend, points) for trend in ordered if (points := _points(trend["points"]))]


def _grouped(trends: list[dict[str, Any]]) -> dict[tuple[str, str, str], list[Line]]:
    groups: dict[tuple[str, str, str], list[Line]] = {}
    for trend, points in measured_lines(trends):
        groups.setdefault((trend["activity"], trend["metric"], trend["unit"]), []).append((trend["host"], points))
    return groups


def _chart(key: tuple[str, str, str], lines: list[Line]) -> dict[str, Any]:
    activity, metric, unit = key
    lines = sorted(lines, key=lambda line: -line[1][-1][1])
    return {
        "activity": activity,
        "metric": metric,
        "unit": unit,
        "lines": lines,
        "svg": "",
        "summary": _summary(lines, unit),
        "legend": [
            {"number": number, "host": host, "latest": quantity(points[-1][1], unit)}
            for number, (host, points) in enumerate(lines, 1)
        ]
        if 1 < len(lines) <= MOST_LINES
        else [],
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


def _picture(chart: dict[str, Any]) -> str:
    matplotlib = _matplotlib()
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": f"{chart['activity']} {chart['metric']} {chart['unit']}",
        "path.simplify": True,
    }
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(4.0, 1.75))
        FigureCanvasSVG(figure)
        axes = figure.add_axes((0.2, 0.19, 0.77, 0.74))
        _plot(axes, chart["lines"])
        _dress(axes, chart["lines"], chart["unit"])
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    hosts = enumeration([host for host, _points_ in chart["lines"]], 3)
    label = f"{words(chart['metric'])} of {words(chart['activity'])} on {hosts}. {chart['summary']}"
    return _inline(stream.getvalue(), label)


def _plot(axes: Any, lines: list[Line]) -> None:
    if len(lines) > MOST_LINES:
        for _host, points in reversed(lines[1:]):
            axes.plot(*zip(*points, strict=True), color=_BUNDLE, linewidth=0.8, marker=_marker(points), markersize=2.5)
        lines = lines[:1]
    for number, (_host, points) in enumerate(lines):
        axes.plot(*zip(*points, strict=True), color=_LINES[number], linestyle=DASHES[number], linewidth=1.6)
        shown = points if len(points) <= 12 else points[-1:]
        axes.plot(*zip(*shown, strict=True), color=_LINES[number], linestyle="none", marker="o", markersize=3.2)


def _marker(points: Points) -> str:
    return "o" if len(points) == 1 else ""


def _dress(axes: Any, lines: list[Line], unit: str) -> None:
    """Axes that say little: two or three values in human units, the first and the last day."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

    values = [value for _host, points in lines for _when, value in points]
    times = [when for _host, points in lines for when, _value in points]
    low, high = _limits(min(values), max(values))
    size, name = _scale(max(abs(low), abs(high)), unit)
    ticks = [
        tick * size for tick in MaxNLocator(3, integer=unit in ("count", "bytes")).tick_values(low / size, high / size)
    ]
    axes.set_ylim(low, high)
    axes.yaxis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _position: f"{value / size:,.4g}{name}"))

    first, last = min(times), max(times)
    margin = (last - first) * 0.02 or 1.0
    axes.set_xlim(first - margin, last + margin)
    axes.xaxis.set_major_locator(FixedLocator([first, last] if last > first else [first]))
    labels = _time_labels(first, last)
    axes.set_xticklabels(labels)
    if len(labels) > 1:
        for label, side in zip(axes.get_xticklabels(), ("left", "right"), strict=True):
            label.set_horizontalalignment(side)

    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_RULE)
    axes.grid(axis="y", color=_RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=10, labelcolor=_INK, pad=5)


def _limits(low: float, high: float) -> tuple[float, float]:
    """The vertical range: from zero where that does not flatten the line, never empty."""
    if (low >= 0 and low < 0.7 * high) or low == high >= 0:
        return 0.0, high * 1.12 or 1.0
    margin = (high - low or abs(high)) * 0.15
    return low - margin, high + margin


def _scale(largest: float, unit: str) -> tuple[float, str]:
    """The factor and the name of the human unit for values up to *largest*."""
    if unit == "ratio":
        return 0.01, " %"
    for size, name in _SCALES.get(unit, ()):
        if largest >= size:
            return size, f" {name}"
    if unit == "seconds":
        return 0.001, " ms"
    # Matplotlib would set a unit with $ as mathematics.
    return 1.0, f" {unit}" if unit not in ("count", "bytes") and unit.isalnum() else ""


def _time_labels(first: float, last: float) -> list[str]:
    from datetime import UTC, datetime

    begin, end = (datetime.fromtimestamp(when, UTC) for when in (first, last))
    if first == last:
        return [day(begin.isoformat())]
    if begin.date() == end.date():
        return [f"{begin.day} {begin:%b, %H:%M}", f"{end:%H:%M}"]
    return [day(begin.isoformat()), day(end.isoformat())]


def _inline(svg: str, label: str) -> str:
    """Matplotlib's *svg* fit to stand in a page beside others: no prolog, no style, only the identifiers it needs."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", svg)
    svg = re.sub(r"#0a01[01][0-9]", lambda match: _COLOURS[match.group()], svg)
    view_box = re.search(r'viewBox="[^"]*"', svg)
    opening = f'<svg {view_box.group() if view_box else ""} role="img" aria-label="{Markup.escape(visible(label))}">'
    return opening + re.sub(r"\n\s*", "\n", svg[svg.index(">") + 1 :]).strip()


def _matplotlib() -> Any:
    """Matplotlib, with its files in a private directory of this process: a home may be read-only, or not ours."""
    if "MPLCONFIGDIR" not in os.environ:
        directory = tempfile.mkdtemp(prefix="wellkept-matplotlib-")
        os.environ["MPLCONFIGDIR"] = directory
        atexit.register(shutil.rmtree, directory, ignore_errors=True)
    import matplotlib

    return matplotlib
