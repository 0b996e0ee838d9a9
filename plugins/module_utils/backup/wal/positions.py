# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Write-ahead log: positions, the names of segments, and whether a directory holds all of a range."""

from __future__ import annotations

import os
import re

from ...errors import MaintenanceError
from ...processes import last_words, run

SEGMENT_NAME = re.compile(r"[0-9A-F]{24}")


def parse_lsn(text: str) -> int:
    """``"1/A0"`` → 4294967456."""
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)


def format_lsn(position: int) -> str:
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"


def segment_name(timeline: int, position: int, segment_bytes: int) -> str:
    """Name of the segment that holds the byte *position*."""
    number = position // segment_bytes
    per_file_id = 0x100000000 // segment_bytes
    return f"{timeline:08X}{number // per_file_id:08X}{number % per_file_id:08X}"


def segments_between(timeline: int, start: str, end: str, segment_bytes: int) -> list[str]:
    """Names of the segments from the one that holds *start* to the one that holds the byte before *end*."""
    first, last = parse_lsn(start), max(parse_lsn(start), parse_lsn(end) - 1)
    return [
        segment_name(timeline, number * segment_bytes, segment_bytes)
        for number in range(first // segment_bytes, last // segment_bytes + 1)
    ]


def parse_segments(bin_dir: str, directory: str, timeline: int, start: str, end: str) -> str:
    """Let pg_waldump read every record from *start* to *end*; returns its complaint, or "" when it has none.

    Its exit status is not enough: it must not have said anything either.
    """
    try:
        done = run(
            [os.path.join(bin_dir, "pg_waldump"), "--quiet", f"--path={directory}", f"--timeline={timeline}",
             f"--start={start}", f"--end={end}"],
            accept=(0, 1),
            what="read the WAL with pg_waldump",
        )  # fmt: skip
    except MaintenanceError as error:
        return error.observed
    if done.returncode == 0 and not done.stderr.strip():
        return ""
    return last_words(done.stderr)
