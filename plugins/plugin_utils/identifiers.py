# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Identifiers that sort by the time at which they were made: UUID version 7 (RFC 9562)."""

from __future__ import annotations

import os
import time
import uuid


def new_id(milliseconds: int | None = None, random_bytes: bytes | None = None) -> str:
    """A UUIDv7 of now, or of *milliseconds* since 1970 with the given 10 *random_bytes*."""
    stamp = time.time_ns() // 1_000_000 if milliseconds is None else milliseconds
    noise = bytearray(random_bytes or os.urandom(10))
    noise[0] = 0x70 | noise[0] & 0x0F
    noise[2] = 0x80 | noise[2] & 0x3F
    return str(uuid.UUID(bytes=stamp.to_bytes(6, "big") + bytes(noise)))
