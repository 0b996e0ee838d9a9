# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files that are written whole or not at all, and their hashes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import tempfile
import typing as t

_CHUNK = 1 << 20


def sha256_of(path: str) -> str:
    """Hex SHA-256 of the regular file *path*; a link at its end is refused (OSError)."""
    digest = hashlib.sha256()
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        for block in iter(lambda: stream.read(_CHUNK), b""):
            digest.update(block)
    return digest.hexdigest()


def write_atomically(path: str, content: bytes, mode: int = 0o600) -> None:
    """Replace *path* by *content* so that a reader, or a power cut, finds the old or the new file, whole."""
    directory = os.path.dirname(path) or "."
    descriptor, temporary = tempfile.mkstemp(prefix=f".{os.path.basename(path)}.", dir=directory)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    sync_directory(directory)


def sync_directory(path: str) -> None:
    """Make renames and removals in the directory *path* durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_json(path: str) -> t.Any:
    """The JSON document in *path*, or None when there is no such file; raises ValueError when it is not JSON."""
    try:
        return json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def write_json(path: str, document: t.Any, mode: int = 0o600) -> None:
    """Write *document* as JSON, whole or not at all."""
    write_atomically(path, (json.dumps(document, indent=1, sort_keys=True) + "\n").encode(), mode)
