# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Durations and sizes as people write them (``7d``, ``90s``, ``10MiB``) and as records keep them (seconds, bytes)."""

from __future__ import annotations

import re

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_BYTES = {
    "": 1, "B": 1,
    "K": 1024, "KiB": 1024, "M": 1024**2, "MiB": 1024**2, "G": 1024**3, "GiB": 1024**3, "T": 1024**4, "TiB": 1024**4,
    "kB": 1000, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "TB": 1000**4,
}  # fmt: skip
_QUANTITY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")


def parse_duration(text: str | int | float) -> float:
    """Seconds of ``"7d"``, ``"1h30m"``, ``"45s"`` or of a plain number of seconds.

    Raises ValueError that shows the offending text and the accepted form.
    """
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        return _not_negative(float(text), text)
    stripped = str(text).strip()
    if re.fullmatch(r"\d+(\.\d+)?", stripped):
        return float(stripped)
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhdw])", stripped)
    if not parts or "".join(number + unit for number, unit in parts) != stripped.replace(" ", ""):
        raise ValueError(f"{text!r} is not a duration; write numbers with s, m, h, d or w, like 90s, 6h or 1h30m")
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def parse_size(text: str | int) -> int:
    """Bytes of ``"10MiB"``, ``"500kB"`` or of a plain number of bytes; raises ValueError like parse_duration."""
    if isinstance(text, int) and not isinstance(text, bool):
        return int(_not_negative(text, text))
    match = _QUANTITY.fullmatch(str(text))
    if not match or match.group(2) not in _BYTES:
        raise ValueError(
            f"{text!r} is not a size; write a number with KiB, MiB, GiB, TiB, kB, MB, GB or TB, like 10MiB"
        )
    return int(float(match.group(1)) * _BYTES[match.group(2)])


def _not_negative(value: float, text: object) -> float:
    if value < 0:
        raise ValueError(f"{text!r} is negative; a duration or size is 0 or more")
    return value


def human_bytes(count: float) -> str:
    """``1536`` → ``1.5 KiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def human_seconds(seconds: float) -> str:
    """``0.21`` → ``210 ms``, ``75`` → ``1 min 15 s``, ``93600`` → ``1 d 2 h``."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, unit, smaller_size, smaller_unit in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // smaller_size
            return f"{whole // size} {unit} {rest} {smaller_unit}" if rest else f"{whole // size} {unit}"
    return f"{whole} s"
