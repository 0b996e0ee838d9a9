# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How files are called in a mirror: as in their source, but for bytes that a protocol or a program could stumble over.

Bytes that are no UTF-8, control characters, ``%`` and ``\\`` are written as ``%XX``; so is the first letter of what
would look like one of our own names.
"""

from __future__ import annotations

import os
import re

# Our own directory in a mirror: manifests, whose mirror it is, and what proves that nothing can be removed.
OWN = ".wellkept-mirror"
# What is being written has such a name until it is whole.
INCOMING = ".incoming-"

_ESCAPED = re.compile(r"%([0-9A-F]{2})")


def to_mirror(path: str) -> str:
    """The name in the mirror of the relative *path* as the system knows it here."""
    return "/".join(_escape(part) for part in path.split("/"))


def from_mirror(name: str) -> str:
    """The opposite; raises ValueError for what no source can have been called."""
    parts = [_unescape(part) for part in name.split("/")]
    if any(part in ("", ".", "..") or "/" in part or "\0" in part for part in parts):
        raise ValueError(f"{name!r} is no name of a file in a mirror")
    return "/".join(parts)


def _escape(part: str) -> str:
    escaped = "".join(_escape_one(character) for character in part)
    return "%2E" + escaped[1:] if escaped.startswith((OWN, INCOMING)) else escaped


def _escape_one(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how Python holds a byte that is no UTF-8
        return f"%{code - 0xDC00:02X}"
    if code < 0x20 or code == 0x7F or character in "%\\":
        return f"%{code:02X}"
    return character


def _unescape(part: str) -> str:
    raw = _ESCAPED.sub(lambda found: os.fsdecode(bytes([int(found[1], 16)])), part)
    return os.fsdecode(os.fsencode(raw))
