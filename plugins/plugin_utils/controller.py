# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which process of which machine carries out a run, and whether it still lives."""

from __future__ import annotations

import contextlib
import platform
from pathlib import Path
from typing import Any


def identify(pid: int) -> dict[str, Any]:
    """``{host, boot, pid, started}`` of the process *pid* of this machine; unlike a pid alone, it is never reused."""
    return {"host": platform.node(), "boot": _boot_id(), "pid": pid, "started": _start_ticks(pid)}


def is_dead(controller: dict[str, Any]) -> bool:
    """Whether the process that identify() described is known to be gone; False for one of another machine."""
    if controller["host"] != platform.node():
        return False
    if controller["boot"] != _boot_id():
        return True
    return bool(_start_ticks(controller["pid"]) != controller["started"])


def _boot_id() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def _start_ticks(pid: int) -> int:
    """Start time of *pid* in clock ticks since boot; 0 when there is no such process or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] == "Z" else int(fields[19])
