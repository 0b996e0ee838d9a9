# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of the module ``health_check``: for each kind of probe those that stand beside it."""

from __future__ import annotations

import typing as t

from ..options import refuse
from ..quantities import parse_duration
from . import filesystems, host, http, logs, postgresql_health, processes, tcp, units
from .running import Probe


def _many(options: dict[str, t.Any]) -> dict[str, t.Any]:
    return {"type": "list", "elements": "dict", "default": [], "options": options}


def _limits(options: dict[str, t.Any]) -> dict[str, t.Any]:
    return {"type": "dict", "default": {}, "options": options, "apply_defaults": True}


OPTIONS: dict[str, dict[str, t.Any]] = {
    "timeout": {"type": "str", "default": "60s"},
    "http": _many(http.OPTIONS),
    "tcp": _many(tcp.OPTIONS),
    "processes": _many(processes.OPTIONS),
    "units": {"type": "list", "elements": "str", "default": []},
    "postgresql": _many(postgresql_health.OPTIONS),
    "filesystems": _limits(filesystems.OPTIONS),
    "host": _limits(host.OPTIONS),
    "logs": _many(logs.OPTIONS),
}

# The kinds of probes, each named like its option.
KINDS: dict[str, t.Callable[[t.Any], list[Probe]]] = {
    "http": http.probes,
    "tcp": tcp.probes,
    "processes": processes.probes,
    "units": units.probes,
    "postgresql": postgresql_health.probes,
    "filesystems": filesystems.probes,
    "host": host.probes,
}

# How an entry of an option with several entries is called in checks and metrics.
NAMES: dict[str, t.Callable[[dict[str, t.Any]], str]] = {
    "http": lambda entry: str(entry["name"]),
    "tcp": tcp.name_of,
    "processes": lambda entry: str(entry["name"]),
    "postgresql": postgresql_health.name_of,
    "logs": logs.name_of,
}


def seconds_allowed(options: dict[str, t.Any]) -> float:
    """The time for all probes; every duration in the options is read here, so that a wrong one is told at once."""
    durations = {"timeout": options["timeout"]}
    for kind in ("http", "tcp"):
        durations.update({f"{kind}[{NAMES[kind](entry)}].timeout": entry["timeout"] for entry in options[kind]})
    for name, text in durations.items():
        try:
            good = parse_duration(text) > 0
        except ValueError:
            good = False
        if not good:
            refuse(name, expected="a duration like 10s or 1m", observed=repr(text))
    return parse_duration(options["timeout"])


def refuse_equal_names(options: dict[str, t.Any]) -> None:
    """Checks, metrics and remembered positions go by name: two entries with the same one could not be told apart."""
    for kind, name_of in NAMES.items():
        names = [name_of(entry) for entry in options[kind]]
        for name in names:
            if names.count(name) > 1:
                refuse(
                    kind, expected="entries with different names", observed=f"{names.count(name)} entries named {name}"
                )
