# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hashes that are made on the other host, where the account there may run commands."""

from __future__ import annotations

import os
import shlex
import typing as t


def hash_command(path: str) -> str:
    """What is run there to hash files below *path*, by the names that it reads, each ended by a zero byte."""
    return f"cd -- {shlex.quote(path)} && exec xargs -0 -r sha256sum -z --"


def parse_hashes(output: bytes) -> t.Iterator[t.Tuple[str, str]]:
    """Names and hashes in the output of :func:`hash_command`; what does not look like it is left out."""
    for line in output.split(b"\0"):
        digest, mark, name = line[:64], line[64:66], line[66:]
        if len(digest) == 64 and mark in (b"  ", b" *") and name:
            yield os.fsdecode(name), digest.decode("ascii", "replace")
