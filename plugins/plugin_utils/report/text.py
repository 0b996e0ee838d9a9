# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Words, signs and numbers as a person reads them, whatever a host may have called itself."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

from ansible_collections.wellkept.maintenance.plugins.module_utils.quantities import human_bytes, human_seconds

SIGNS = {"passed": "✓", "warned": "!", "failed": "✗", "skipped": "–", "unknown": "?"}  # noqa: RUF001
ASCII_SIGNS = {"passed": "ok", "warned": "!!", "failed": "XX", "skipped": "--", "unknown": "??"}

LONGEST = 1000

# Control characters, marks that turn the direction of writing, lone surrogates, non-characters.
_UNSEEMLY = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff\ufffe\uffff]"
)


def visible(text: str, longest: int = LONGEST) -> str:
    """*text* with everything that could deceive a reader or break a document shown instead of obeyed, and cut if long.

    ``"a\\x1b[2Jb"`` → ``"a␛[2Jb"``; a right-to-left override → ``⟨U+202E⟩``. Line breaks and tabs remain.
    """
    if "\r" in text:
        text = text.replace("\r\n", "\n")
    if len(text) > longest:
        text = f"{text[:longest]}… ({len(text) - longest:,} more characters)"
    return _UNSEEMLY.sub(_shown, text)


def _shown(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "␡"
    return "\ufffd" if 0xD800 <= code <= 0xDFFF else f"⟨U+{code:04X}⟩"


def one_line(text: str) -> str:
    """*text* without line breaks."""
    return " ".join(text.split())


def value_text(value: Any) -> str:
    """A recorded value, such as the *before* of a change: text as it is, everything else as JSON."""
    if isinstance(value, str):
        return value
    if value is None:
        return "none"
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)


def quantity(value: float, unit: str) -> str:
    """A metric for people: ``(1536, "bytes")`` → ``1.5 KiB``, ``(0.5, "ratio")`` → ``50 %``."""
    if unit == "bytes":
        return human_bytes(value)
    if unit == "seconds":
        return human_seconds(value) if value >= 0 else f"-{human_seconds(-value)}"
    if unit == "ratio":
        return f"{value * 100:.3g} %"
    number = f"{value:,.0f}" if float(value).is_integer() else f"{value:,.{3 if abs(value) < 100 else 5}g}"
    return number if unit == "count" else f"{number} {unit}"


def moment(iso: str) -> str:
    """``2026-11-21T09:20:49Z`` → ``21 Nov 2026, 09:20 UTC``; what is no time is returned as it is."""
    parsed = parse_time(iso)
    return f"{parsed.day} {parsed:%b %Y, %H:%M} UTC" if parsed else (iso or "never")


def day(iso: str) -> str:
    parsed = parse_time(iso)
    return f"{parsed.day} {parsed:%b %Y}" if parsed else iso


def parse_time(iso: str | None) -> datetime | None:
    try:
        parsed = datetime.fromisoformat((iso or "").replace("Z", "+00:00"))
    except ValueError:
        return None
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).astimezone(UTC)


def ended(run: dict[str, Any]) -> str:
    """When *run* ended; empty while it goes on."""
    return str(run.get("finished") or run.get("ended") or "")


def seconds_taken(data: dict[str, Any]) -> float:
    """How long an activity took on its host: what its modules say, else from its start to its end."""
    return float(data.get("module_seconds") or seconds_between(data["started"], data["finished"]) or 0.0)


def seconds_between(started: str, finished: str) -> float | None:
    """Seconds from *started* to *finished*, or None where one of them is no time."""
    begin, end = parse_time(started), parse_time(finished)
    return max((end - begin).total_seconds(), 0.0) if begin and end else None


def counted(number: int, singular: str, plural: str = "") -> str:
    """``(1, "check")`` → ``1 check``, ``(2, "check")`` → ``2 checks``."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def enumeration(names: list[str], most: int = 5) -> str:
    """``a, b and c``; beyond *most* names ``a, b, c, d, e and 7 more``."""
    if len(names) > most + 1:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
