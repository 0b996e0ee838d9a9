"""Trees of real files for tests: old ones, big ones, and directories that other users can reach."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

DAY = 86400


def make_file(path: Path, size: int = 100, age_days: float = 0) -> Path:
    """A file of *size* bytes, last modified *age_days* ago, with the directories it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    set_age(path, age_days)
    return path


def set_age(path: Path, age_days: float) -> None:
    then = time.time() - age_days * DAY
    os.utime(path, (then, then), follow_symlinks=False)


def names_in(directory: Path) -> set[str]:
    return {os.fsdecode(os.fsencode(path.relative_to(directory))) for path in directory.rglob("*")}


@contextlib.contextmanager
def open_place() -> Iterator[Path]:
    """A directory that every user can walk to, unlike pytest's own; gone afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="wellkept-test-"))
    directory.chmod(0o755)
    try:
        yield directory.resolve()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
