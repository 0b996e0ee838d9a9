"""Mirrors of real backups: the ways to reach one, and the account that can only add files."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import random
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.repository import (
    Repository,
    format_time,
    new_label,
    write_metadata,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.mirror import receiver

from support.modules import run_module
from support.ssh import SshServer, ssh_server
from support.waiting import wait_until

KINDS = ("sftp", "sftp-only", "rsync", "directory")
_SEGMENT = 1 << 14
# Of how many files a small backup consists.
SMALL = 13


class Site(Protocol):
    """Where backups are."""

    directory: Path
    root: Path


class MirrorSite:
    """A repository, a mirror of it, and the modules that fill and fetch it. ``there`` is the mirror, seen from here."""

    def __init__(self, site: Site, destination: dict[str, Any], there: Path) -> None:
        self.site = site
        self.destination = destination
        self.there = there
        self.kind = str(destination["type"])
        self.state = site.directory / f"state-{there.name}"

    def options(self, **others: Any) -> dict[str, Any]:
        return {
            "state_dir": str(self.state),
            "sources": [{"name": "repository", "path": str(self.site.root)}],
            "destinations": [self.destination],
            **others,
        }

    def mirror(self, check: bool = False, **others: Any) -> dict[str, Any]:
        return run_module("backup_mirror", self.options(**others), check=check)

    def fetch(self, directory: Path, check: bool = False, **others: Any) -> dict[str, Any]:
        options = {"state_dir": str(self.state), "destination": self.destination, "directory": str(directory), **others}
        return run_module("backup_fetch", options, check=check)

    def files(self) -> dict[str, bytes]:
        """What was mirrored, but for what the mirror says of itself."""
        return contents(self.there, skip=".wellkept-mirror")

    def file(self, pattern: str) -> Path:
        """One mirrored file, always the same."""
        found = (path for path in self.there.rglob(pattern) if path.is_file())
        return min(path for path in found if ".wellkept-mirror" not in path.parts)


def contents(root: Path, skip: str = "\0") -> dict[str, bytes]:
    """The files below *root* by their relative names; what goes meanwhile is left out."""
    found = {}
    for parent, directories, names in os.walk(root):
        directories[:] = [name for name in directories if name != skip]
        for name in names:
            path = Path(parent, name)
            with contextlib.suppress(FileNotFoundError):
                found[str(path.relative_to(root))] = path.read_bytes()
    return found


def looks(root: Path) -> dict[str, tuple[int, int, int]]:
    """By what a file or directory below *root* would show that it was written to."""
    found = {}
    for path in root.rglob("*"):
        status = path.lstat()
        found[str(path)] = (status.st_ino, status.st_mtime_ns, status.st_size)
    return found


def over_ssh(server: SshServer, kind: str, **others: Any) -> dict[str, Any]:
    """A destination on *server*."""
    login = {"host": server.host, "port": server.port, "user": server.user}
    files = {"key_file": str(server.key_file), "known_hosts": str(server.known_hosts)}
    return {"name": "vault", "type": kind, **login, **files, **others}


def receiving(root: str) -> str:
    """The options of a key that can only add files below *root*."""
    command = shlex.join([system_python(), "-I", "-S", str(receiver_copy()), root])
    return f"restrict,command={_quoted(command)}"


def receiver_copy() -> Path:
    """The receiver, where every account can read it."""
    return Path(receiver.__file__).resolve()


def system_python() -> str:
    return "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable


class Servers:
    """SSH servers that several tests share, each with mirrors of its own."""

    def __init__(self, full: SshServer, only: SshServer) -> None:
        self._full = full
        self._only = only
        self._numbers = itertools.count()

    def mirror(self, site: Site, kind: str, **others: Any) -> MirrorSite:
        """An empty mirror for the backups of *site*; the kinds ``rsync`` and ``sftp`` may run commands there."""
        name = f"mirror{next(self._numbers)}"
        if kind == "directory":
            there = site.directory / name
            there.mkdir()
            return MirrorSite(site, {"name": "vault", "type": kind, "path": str(there), **others}, there)
        server = self._only if kind == "sftp-only" else self._full
        return ssh_mirror(site, server, kind.partition("-")[0], name, **others)

    def until_quiet(self) -> None:
        """Wait until the servers have done all that killed runs had asked of them."""
        wait_until(lambda: not [*self._full.sessions(), *self._only.sessions()], "the sessions of killed runs to end")


def ssh_mirror(site: Site, server: SshServer, kind: str, name: str = "mirror", **others: Any) -> MirrorSite:
    """An empty mirror on *server*."""
    path = os.path.join(server.path, name)
    return MirrorSite(site, {**over_ssh(server, kind), "path": path, **others}, server.data / name)


@contextmanager
def mirror_servers() -> Iterator[Servers]:
    with ssh_server() as full, ssh_server(config=["ForceCommand internal-sftp"]) as only:
        yield Servers(full, only)


class SmallSite:
    """A repository with small backups that a program could take for real ones, and cheap to make by the dozen."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.root = directory / "repository"
        self.repository = Repository(str(self.root), "main")
        self.repository.prepare()

    def add(self, *, age: float = 3600, parent: str = "", files: int = 5, size: int = 300) -> str:
        """Another backup, begun *age* seconds ago, on *parent* if there is one; returns its label."""
        started = datetime.now(UTC) - timedelta(seconds=age)
        kind = "incremental" if parent else "full"
        label = new_label(kind, started)
        chain = [*(self.repository.backup(parent).chain if parent else []), label]
        chance = random.Random(label)
        with self.repository.new(label, {}) as made:
            directory = Path(made)
            content = {f"base/{number}": chance.randbytes(size) for number in range(files)}
            content |= {"base/PG_VERSION": b"18\n", "wal/000000010000000000000001": chance.randbytes(_SEGMENT)}
            content |= {"dump/0.dump": chance.randbytes(size), os.fsdecode(b"files/0/caf\xe9 %41.txt"): b"odd name"}
            content |= {"files/0/Pr\u00fcfung \u2013 1.txt": b"name in UTF-8", "files/0/line\nbreak": b"broken"}
            manifest = [{"Path": n[5:], "Size": len(b)} for n, b in content.items() if n.startswith("base/")]
            content["base/backup_manifest"] = json.dumps({"Files": manifest}).encode()
            for path, body in content.items():
                (directory / path).parent.mkdir(parents=True, exist_ok=True)
                (directory / path).write_bytes(body)
            (directory / "base/pg_notify").mkdir()
            entries = [
                {"path": path, "bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
                for path, body in content.items()
                if not path.startswith("base/") or path == "base/backup_manifest"
            ]
            metadata = {
                "format": 1, "engine": "core", "label": label, "type": kind, "chain": chain, "cluster": "main",
                "started": format_time(started), "finished": format_time(started), "files": entries,
                "bytes": sum(map(len, content.values())), "empty_directories": ["base/pg_notify"],
                "databases": {"campus": {"file": "dump/0.dump"}}, "timeline": 1, "system_identifier": "7",
                "settings": {"wal_segment_size": _SEGMENT}, "start_lsn": f"0/{_SEGMENT:X}", "server_version": 180000,
                "restore_point": {"lsn": f"0/{2 * _SEGMENT - 1:X}"},
            }  # fmt: skip
            write_metadata(made, metadata)
        return label

    def expire(self, label: str) -> None:
        self.repository.expire(label)


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '\\"') + '"'
