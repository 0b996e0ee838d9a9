# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a base is compressed: the distribution's programs, for Python on managed hosts knows neither zstd nor lz4."""

from __future__ import annotations

import typing as t

from ...processes import find_program, require_program
from ..wal.wal_helper import SUFFIXES

NONE = "none"
_LEVELS = {"gzip": (1, 9), "lz4": (1, 12), "zstd": (1, 19)}
# Of the higher ones, none made a base of real tables smaller by more than some percent: see bench/README.md.
_LEVEL = 1


class Compression(t.NamedTuple):
    """A program by its name, and how hard it tries."""

    name: str
    level: int

    @property
    def suffix(self) -> str:
        return SUFFIXES[self.name]

    def __str__(self) -> str:
        return f"{self.name}:{self.level}"


def parse_compression(text: str) -> Compression | None:
    """``zstd``, ``zstd:3``, or None for ``none``; raises ValueError for anything else."""
    name, colon, level = text.partition(":")
    if name == NONE and not colon:
        return None
    if name not in _LEVELS:
        raise ValueError(f"compression is {text!r}; there are {NONE}, {', '.join(_LEVELS)}, as in zstd:3")
    least, most = _LEVELS[name]
    if not colon:
        return Compression(name, _LEVEL)
    if not level.isascii() or not level.isdigit() or not least <= int(level) <= most:
        raise ValueError(f"compression is {text!r}; {name} has the levels {least} to {most}")
    return Compression(name, int(level))


def packer(compression: Compression, jobs: int) -> list[str]:
    """The command that compresses its standard input, on *jobs* processors where it can."""
    name, level = compression.name, f"-{compression.level}"
    if name == "zstd":
        return [_program(name), "-q", "-c", level, f"-T{jobs}"]
    if name == "lz4":
        return [_program(name), "-q", "-c", level]
    parallel = find_program("pigz")
    return [parallel, "-c", level, f"-p{jobs}"] if parallel else [_program(name), "-c", level]


def unpacker(name: str) -> list[str]:
    """The command that decompresses its standard input; all of them tell what does not fit its own checksum."""
    return [_program(name), "-q", "-d", "-c"]


def _program(name: str) -> str:
    return require_program(name, what="compress or decompress a base backup")
