# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""logrotate's state file: when each log was rotated last."""

from __future__ import annotations

import re
import time
import typing as t

HEADING = "logrotate state -- version 2"

_LINE = re.compile(r'"((?:[^"\\]|\\.)*)" (\d{4})-(\d{1,2})-(\d{1,2})-(\d{1,2}):(\d{1,2}):(\d{1,2})')
_ESCAPES = {"n": "\n"}


class State(t.NamedTuple):
    """``dates``: path → seconds since the epoch. ``problems``: what cannot be read; empty for a sound file."""

    dates: dict[str, float]
    problems: tuple[str, ...]


def parse(text: str) -> State:
    """Read the state file's *text*, keeping every sound line even of a file that is not sound.

    ``'logrotate state -- version 2\\n"/var/log/a.log" 2026-11-21-9:26:1\\n'`` → ``{'/var/log/a.log': 1795253161.0}``
    """
    lines = text.split("\n")
    problems = [] if lines[0] in (HEADING, "logrotate state -- version 1") else ["the first line is not logrotate's"]
    dates: dict[str, float] = {}
    unread = 0
    for line in lines[1:] if not problems else lines:
        match = _LINE.fullmatch(line)
        moment = _moment(match) if match else None
        if match and moment is not None:
            dates[_unescaped(match.group(1))] = moment
        elif line.strip():
            unread += 1
    if unread and lines[0] == HEADING:
        problems.append(f"{unread} line{'s' * (unread > 1)} cannot be read")
    return State(dates, tuple(problems))


def render(dates: t.Mapping[str, float]) -> str:
    """The text of a state file that holds *dates*."""
    lines = [HEADING]
    for path, moment in sorted(dates.items()):
        local = time.localtime(moment)
        escaped = path.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        lines.append(
            f'"{escaped}" {local.tm_year}-{local.tm_mon}-{local.tm_mday}-{local.tm_hour}:{local.tm_min}:{local.tm_sec}'
        )
    return "\n".join(lines) + "\n"


def _moment(line: re.Match[str]) -> float | None:
    year, month, day, hour, minute, second = (int(number) for number in line.groups()[1:])
    try:
        return time.mktime((year, month, day, hour, minute, second, 0, 0, -1))
    except (OverflowError, ValueError):
        return None


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match.group(1), match.group(1)), text, flags=re.DOTALL)
