# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A run told to people (HTML, Markdown) and to programs (JSON, JUnit XML, a Prometheus textfile)."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible_collections.wellkept.maintenance.plugins.module_utils.files import write_atomically

FILE_NAMES = {
    "html": "report.html",
    "markdown": "report.md",
    "json": "report.json",
    "junit": "junit.xml",
    "prometheus": "wellkept.prom",
}


def write(report: dict[str, Any], directory: Path, cache: Path | None = None) -> dict[str, Path]:
    """Write *report* into *directory* in every form; returns ``{"html": path, …}``.

    *cache* is a private directory in which one report may leave what makes the next one faster.

    Each file replaces its predecessor whole: who reads meanwhile, like node_exporter, finds the old or the new one.
    """
    # Whoever only asks for FILE_NAMES does not wait for Jinja.
    from . import html, junit, markdown, prometheus

    forms: dict[str, Callable[[dict[str, Any]], str]] = {
        "html": lambda report: html.render(report, cache),
        "markdown": markdown.render,
        "json": canonical_json,
        "junit": junit.render,
        "prometheus": prometheus.render,
    }
    contents = {form: render(report) for form, render in forms.items()}
    directory.mkdir(parents=True, exist_ok=True)
    mode = 0o666 & ~_umask()
    paths = {}
    for form, content in contents.items():
        paths[form] = directory / FILE_NAMES[form]
        # A lone surrogate becomes \udcXX, which only JSON can hold: the others have replaced it already.
        write_atomically(str(paths[form]), content.encode("utf-8", errors="backslashreplace"), mode)
    return paths


def canonical_json(report: dict[str, Any]) -> str:
    """*report* with sorted keys and no white space, so that equal reports are equal files."""
    try:
        return _dump(report)
    except ValueError:
        return _dump(_finite(report))


def _dump(document: Any) -> str:
    return json.dumps(document, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    """*value* with null for the numbers that JSON does not know."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
