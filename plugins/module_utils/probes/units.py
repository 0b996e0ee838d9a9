# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Probe of systemd units: those that must be active, asked for in one call."""

from __future__ import annotations

import os
import re
import typing as t

from ..processes import find_program, run
from ..result import Part
from .running import Probe

PROPERTIES = (
    "Id",
    "Names",
    "LoadState",
    "ActiveState",
    "SubState",
    "Type",
    "Result",
    "NRestarts",
    "ExecMainExitTimestamp",
)
_NAME = re.compile(r"[A-Za-z0-9:_.@\\][A-Za-z0-9:_.@\\-]*")
_SUFFIX = re.compile(r"\.(service|socket|device|mount|automount|swap|target|path|timer|slice|scope)$")
CALL_TIMEOUT = 20

Unit = t.Dict[str, str]


def probes(names: t.Sequence[str]) -> list[Probe]:
    return [Probe("systemd units", lambda part: probe([full_name(name) for name in names], part))] if names else []


def full_name(name: str) -> str:
    """``nginx`` → ``nginx.service``; ``backup.timer`` stays."""
    return name if _SUFFIX.search(name) else f"{name}.service"


def probe(names: t.Sequence[str], part: Part) -> None:
    reason = why_not_here()
    bad = [name for name in names if not _NAME.fullmatch(name)]
    units = {} if reason else measure([name for name in names if name not in bad])
    for name in names:
        if name in bad:
            unknown(name, "no name of a unit", "Write the name without wildcards.", part)
        elif reason:
            unknown(name, reason, "Probe it with the option processes instead.", part)
        elif name not in units:
            unknown(name, "systemctl says nothing about it", "Correct the name.", part)
        else:
            decide(name, units[name], part)


def why_not_here() -> str:
    """Why units cannot be asked for on this host; empty when they can."""
    if not os.path.isdir("/run/systemd/system"):
        return "systemd does not run on this host"
    return "" if find_program("systemctl") else "systemctl is not installed"


def measure(names: t.Sequence[str]) -> dict[str, Unit]:
    """The properties of the units *names*."""
    if not names:
        return {}
    program = find_program("systemctl") or "systemctl"
    command = [program, "show", "--no-pager", f"--property={','.join(PROPERTIES)}", "--", *names]
    return by_name(names, parse_show(run(command, timeout=CALL_TIMEOUT).stdout))


def parse_show(output: str) -> list[Unit]:
    """The blocks of ``systemctl show``: ``Id=nginx.service\\nActiveState=active\\n\\nId=…`` → two dictionaries."""
    blocks = (block.splitlines() for block in re.split(r"\n\s*\n", output.strip()))
    return [dict(line.split("=", 1) for line in block if "=" in line) for block in blocks]


def by_name(names: t.Sequence[str], units: t.Sequence[Unit]) -> dict[str, Unit]:
    """Which of *units* each of *names* is; a unit answers to its aliases too (``sshd.service`` is ``ssh.service``)."""
    known = {alias: unit for unit in units for alias in [unit.get("Id", ""), *unit.get("Names", "").split()]}
    return {name: known[name] for name in names if name in known}


def decide(name: str, unit: Unit, part: Part) -> None:
    """Active is good; so is a one-shot unit that has run and succeeded. On its way to either is a warning."""
    state, result = unit.get("ActiveState", ""), unit.get("Result", "")
    observed = f"{state} ({unit.get('SubState', '')})"
    if unit.get("LoadState") not in (None, "loaded"):
        status, observed = "failed", f"{unit['LoadState']}: no such unit is loaded"
    elif state == "active" or ran_well(unit):
        status = "passed"
    elif state in ("activating", "reloading", "deactivating") and unit.get("SubState") != "auto-restart":
        status = "warned"
    else:
        status = "failed"
        observed += f", result {result}" if result not in ("", "success") else ""
    restarts = unit.get("NRestarts", "")
    if restarts.isdigit():
        part.metric(f"unit_restarts {name}", int(restarts), "count")
    part.check(
        f"unit {name}",
        status,
        expected="active",
        observed=observed,
        advice=f"See `systemctl status {name}` and `journalctl -u {name}`.",
        evidence={
            key: unit[key] for key in ("LoadState", "ActiveState", "SubState", "Result", "NRestarts") if key in unit
        },
    )


def ran_well(unit: Unit) -> bool:
    return (
        unit.get("Type") == "oneshot"
        and unit.get("ActiveState") == "inactive"
        and unit.get("Result") == "success"
        and unit.get("ExecMainExitTimestamp", "") not in ("", "n/a")
    )


def unknown(name: str, observed: str, advice: str, part: Part) -> None:
    part.check(f"unit {name}", "unknown", expected="active", observed=observed, advice=advice)
