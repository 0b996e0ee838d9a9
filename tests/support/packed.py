"""Compressed bases: programs that go wrong on purpose, and archives made anew after a change to what is in them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.repository import Backup, write_metadata

Members = dict[str, tuple[tarfile.TarInfo, bytes]]


def wrapper(directory: Path, name: str, script: str) -> Path:
    """A program *name* in *directory* that runs *script* (bash), in which ``$real`` is the real one."""
    real = shutil.which(name)
    assert real, f"{name} is not installed"
    directory.mkdir(exist_ok=True)
    path = directory / name
    path.write_text(f"#!/bin/bash\nreal={real}\n{script}\n")
    path.chmod(0o755)
    return path


def path_with(directory: Path) -> str:
    return f"{directory}:{os.environ['PATH']}"


def archives(backup: Backup) -> list[Path]:
    return [Path(backup.path(entry["path"])) for entry in backup.metadata["packed"]["archives"]]


def read_archive(path: Path) -> Members:
    content = subprocess.run(["zstd", "-dcq", str(path)], check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(content)) as members:
        return {m.name: (m, (members.extractfile(m) or io.BytesIO()).read()) for m in members}


def write_archive(path: Path, members: Members) -> None:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, (member, content) in members.items():
            member.name, member.size = name, len(content)
            archive.addfile(member, io.BytesIO(content))
    packed = subprocess.run(["zstd", "-cq"], input=plain.getvalue(), check=True, capture_output=True).stdout
    path.write_bytes(packed)


def forge(backup: Backup, path: Path, change: Callable[[Members], Any]) -> Backup:
    """Change what is in the archive *path*, and make its hash fit: what a careful forger would do."""
    members = read_archive(path)
    change(members)
    write_archive(path, members)
    return fit_hash(backup, path)


def fit_hash(backup: Backup, path: Path) -> Backup:
    """Let the description of *backup* have the hash that the file *path* has now."""
    metadata = json.loads(json.dumps(backup.metadata))
    [entry] = [entry for entry in metadata["files"] if backup.path(entry["path"]) == str(path)]
    entry.update(sha256=hashlib.sha256(path.read_bytes()).hexdigest(), bytes=path.stat().st_size)
    write_metadata(backup.directory, metadata)
    return backup._replace(metadata=metadata)
