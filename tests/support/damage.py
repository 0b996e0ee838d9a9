"""What a disk, a crash or a person does to a file."""

from __future__ import annotations

import os
from pathlib import Path


def flip(path: Path, position: int, bit: int) -> None:
    """Change one bit; a second time, it is as it was."""
    with path.open("r+b") as stream:
        stream.seek(position)
        byte = stream.read(1)[0]
        stream.seek(position)
        stream.write(bytes([byte ^ 1 << bit]))


def remove(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    """Take the last byte away."""
    os.truncate(path, path.stat().st_size - 1)


def append(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b"\0")


def empty(path: Path) -> None:
    path.write_bytes(b"")
