# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Probe of the host itself: memory, swap, load and clock."""

from __future__ import annotations

import ctypes
import os
import typing as t
from pathlib import Path

from ..errors import MaintenanceError
from ..processes import find_program, run
from ..quantities import human_bytes, human_seconds
from ..result import Part, limit_status
from .running import Probe

OPTIONS: dict[str, dict[str, t.Any]] = {
    "warn_memory_available_ratio": {"type": "float", "default": 0.10},
    "fail_memory_available_ratio": {"type": "float", "default": 0.03},
    "warn_swap_used_ratio": {"type": "float", "default": 0.80},
    "fail_swap_used_ratio": {"type": "float", "default": 1.0},
    "warn_load_per_core": {"type": "float", "default": 2.0},
    "fail_load_per_core": {"type": "float", "default": 8.0},
    "clock": {"type": "str", "choices": ["if_measurable", "required", "never"], "default": "if_measurable"},
    "warn_clock_offset_seconds": {"type": "float", "default": 0.1},
    "fail_clock_offset_seconds": {"type": "float", "default": 1.0},
}

TIME_ERROR = 5
STA_NANO = 0x2000


class Memory(t.NamedTuple):
    """Bytes of memory: of the host, or of the container where its limit is lower."""

    available: int
    total: int
    swap_free: int
    swap_total: int
    limited: bool


class Clock(t.NamedTuple):
    """How far the clock is off, as its keeper says; ``offset`` None with the reason why it is not known."""

    offset: float | None
    source: str
    reason: str = ""
    failed: bool = False


def probes(options: dict[str, t.Any]) -> list[Probe]:
    found = [
        Probe("memory", lambda part: decide_memory(measure_memory(), options, part)),
        Probe("load", lambda part: decide_load(os.getloadavg()[1], os.cpu_count() or 1, options, part)),
    ]
    if options["clock"] != "never":
        found.append(Probe("clock", lambda part: decide_clock(measure_clock(), options, part)))
    return found


def measure_memory(proc: str = "/proc", cgroup: str = "/sys/fs/cgroup") -> Memory:
    """Memory as the kernel counts it.

    A host's own root control group has no limit; the files are there only in a container, whose group looks like the
    root from within.
    """
    sizes = parse_meminfo(Path(proc, "meminfo").read_text(encoding="ascii"))
    memory = Memory(sizes["MemAvailable"], sizes["MemTotal"], sizes["SwapFree"], sizes["SwapTotal"], False)
    for directory, limit_file, used_file, reclaimable in (
        (cgroup, "memory.max", "memory.current", "inactive_file"),
        (f"{cgroup}/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        limit = _number(f"{directory}/{limit_file}")
        used = _number(f"{directory}/{used_file}")
        if limit is not None and used is not None and limit < memory.total:
            cached = _field(f"{directory}/memory.stat", reclaimable)
            available = min(limit - max(used - cached, 0), memory.available)
            return memory._replace(available=max(available, 0), total=limit, limited=True)
    return memory


def parse_meminfo(text: str) -> dict[str, int]:
    """``MemTotal:  16384 kB`` → ``{"MemTotal": 16777216}``."""
    fields = (line.split() for line in text.splitlines())
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in fields if len(words) >= 2}


def _number(path: str) -> int | None:
    try:
        return int(Path(path).read_text(encoding="ascii"))
    except (OSError, ValueError):  # not there, or "max"
        return None


def _field(path: str, name: str) -> int:
    try:
        lines = [line.split() for line in Path(path).read_text(encoding="ascii").splitlines()]
        return next((int(words[1]) for words in lines if words[0] == name), 0)
    except (OSError, ValueError):
        return 0


def decide_memory(memory: Memory, options: dict[str, t.Any], part: Part) -> None:
    ratio = memory.available / memory.total
    warn, fail = options["warn_memory_available_ratio"], options["fail_memory_available_ratio"]
    part.metric("memory_available_ratio", round(ratio, 4), "ratio")
    part.check(
        "memory available",
        limit_status(-ratio, -warn, -fail),
        expected=f"at least {warn:.0%} (fails below {fail:.0%})",
        observed=f"{ratio:.1%}, {human_bytes(memory.available)} of {human_bytes(memory.total)}"
        + (" that the container may use" if memory.limited else ""),
        advice="See which processes take it (`ps -eo rss,cmd --sort=-rss | head`).",
    )
    used = 1 - memory.swap_free / memory.swap_total if memory.swap_total else 0.0
    warn, fail = options["warn_swap_used_ratio"], options["fail_swap_used_ratio"]
    part.metric("swap_used_ratio", round(used, 4), "ratio")
    part.check(
        "swap use",
        limit_status(used, warn, fail),
        expected=f"at most {warn:.0%} used" + (f" (fails above {fail:.0%})" if fail < 1 else ""),
        observed=f"{used:.1%} of {human_bytes(memory.swap_total)}" if memory.swap_total else "there is no swap",
        advice="See which processes have outgrown the memory.",
    )


def decide_load(load: float, cores: int, options: dict[str, t.Any], part: Part) -> None:
    """*load* is the mean of 5 minutes. It counts the whole host, and so do *cores*, in a container too."""
    per_core = load / cores
    warn, fail = options["warn_load_per_core"], options["fail_load_per_core"]
    part.metric("load_per_core", round(per_core, 3), "count")
    part.check(
        "load per core",
        limit_status(per_core, warn, fail),
        expected=f"at most {warn:g} over 5 minutes (fails above {fail:g})",
        observed=f"{per_core:.2f} ({load:.2f} on {cores} cores)",
        advice="See what runs or waits for disks (`top`, `vmstat 1`).",
    )


def measure_clock() -> Clock:
    """The offset by chrony where it runs, else by the kernel, which any other keeper of time tells it."""
    program = find_program("chronyc")
    if program:
        try:
            return parse_tracking(run([program, "-c", "-n", "tracking"], timeout=5).stdout)
        except MaintenanceError:
            pass  # chrony is installed but does not run: the kernel may know from another keeper
    return kernel_clock()


def parse_tracking(line: str) -> Clock:
    """``C0A80101,ntp1,2,1763714401.2,-0.000012,…,Normal`` → an offset of 12 µs."""
    fields = line.strip().split(",")
    if len(fields) < 14:
        return Clock(None, "chrony", "chronyc's answer cannot be read")
    if fields[13] == "Not synchronised":
        return Clock(None, "chrony", "chrony is not synchronised with any source", failed=True)
    return Clock(abs(float(fields[4])), "chrony")


class _Timex(ctypes.Structure):
    """The beginning of the kernel's struct timex (adjtimex(2)), with room for the rest."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 400),
    )


def kernel_clock() -> Clock:
    """What adjtimex(2), which only reads here, says: a clock that nobody disciplines has no known offset."""
    timex = _Timex()
    state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex))
    if state < 0:
        return Clock(None, "kernel", os.strerror(ctypes.get_errno()))
    if state == TIME_ERROR:
        return Clock(None, "kernel", "no keeper of time has synchronised the kernel's clock")
    return Clock(abs(timex.offset) / (1e9 if timex.status & STA_NANO else 1e6), "kernel")


def decide_clock(clock: Clock, options: dict[str, t.Any], part: Part) -> None:
    """An offset is judged. Where none can be had, that is ``unknown`` if the operator requires it, else no check."""
    warn, fail = options["warn_clock_offset_seconds"], options["fail_clock_offset_seconds"]
    expected = f"at most {human_seconds(warn)} off (fails above {human_seconds(fail)})"
    if clock.offset is None:
        if clock.failed or options["clock"] == "required":
            part.check(
                "clock offset",
                "failed" if clock.failed else "unknown",
                expected=expected,
                observed=clock.reason,
                advice="Run chrony (`apt-get install chrony`) or systemd-timesyncd, and see that it has servers.",
            )
        return
    part.metric("clock_offset_seconds", round(clock.offset, 6), "seconds")
    part.check(
        "clock offset",
        limit_status(clock.offset, warn, fail),
        expected=expected,
        observed=f"{clock.offset * 1e6:.0f} µs off, by {clock.source}",
        advice="See `chronyc sources` or `timedatectl timesync-status`.",
    )
