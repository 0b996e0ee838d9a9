# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A backup repository on another host: what a restore here needs of it is fetched over SSH, and goes afterwards.

At first the descriptions alone come, and the WAL, from which it can be told what would be done; the rest when it is to
be done. What was hashed there while it was read must be what arrives; the engine then holds it against the hashes that
were taken when the backup was made. What is proven here is brought back: see ``returned_proofs``.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
import typing as t

from ..backup.remote_files import RemoteFiles
from ..backup.repository import METADATA, Backup, Repository, parse_metadata, parse_time
from ..backup.wal.positions import parse_lsn, segment_name
from ..errors import MaintenanceError
from ..options import refuse
from ..quantities import human_bytes
from ..result import Part
from ..ssh.login import OPTIONS as LOGIN_OPTIONS
from ..ssh.login import Login, read_login_option
from ..ssh.openssh import run_there
from . import live_cluster
from .returned_proofs import ReturnedProofs
from .scratch_directory import prepare_base, scratch_directory
from .targets import Target

OPTION: dict[str, t.Any] = {
    "type": "dict",
    "options": {
        **LOGIN_OPTIONS,
        "host": {"type": "str", "required": True},
        "user": {"type": "str", "default": "root"},
        "read_only": {"type": "bool", "default": False},
    },
}
_WHAT = "read the backup repository of another host"
# What tells of a backup, without its base, its dumps and its files.
_DESCRIPTION = r"(?!(base|dump|files)(/|$)).*|base|base/(backup_manifest|postgresql\.conf)"
_MARGIN_BYTES = 64 << 20

_LIST_BACKUPS = """
import json, os, sys
directory = json.load(sys.stdin)
found = {}
for name in os.listdir(directory):
    try:
        with open(os.path.join(directory, name, "backup.json"), "rb") as stream:
            found[name] = stream.read().decode("latin-1")
    except (FileNotFoundError, NotADirectoryError):
        pass
json.dump(found, sys.stdout)
"""
_LIST_FILES = """
import json, os, sys
top = json.load(sys.stdin)
found = []
for parent, _below, names in os.walk(top):
    for name in names:
        path = os.path.join(parent, name)
        try:
            found.append((os.path.relpath(path, top), os.lstat(path).st_size))
        except FileNotFoundError:
            pass
json.dump(found, sys.stdout)
"""


class Source:
    """A repository on this host: there is nothing to fetch."""

    def __init__(self, params: dict[str, t.Any]) -> None:
        # The module's options, with repository and wal_archive as they are here.
        self.params = params

    def fetch(self, backup: Backup, part: Part) -> float | None:
        """Bring all that a restore of *backup* needs; the seconds that it took, or None when it cannot be had."""
        del backup, part
        return 0.0

    def bring_back_proofs(self, part: Part) -> None:
        """Let the repository know what was proven, or disproven, of its backups."""


class RemoteSource(Source):
    """A repository on the host in the option ``repository_ssh``, fetched into the private directory *scratch*."""

    def __init__(self, params: t.Mapping[str, t.Any], scratch: str) -> None:
        self.remote = read_login_option("repository_ssh", params["repository_ssh"], _WHAT)
        self.files = RemoteFiles(self.remote)
        self.there = os.path.join(params["repository"], params["cluster"])
        self.wal_there = params["wal_archive"]
        local = Repository(os.path.join(scratch, "repository"), params["cluster"])
        local.prepare()
        self.local = local
        kept = os.path.join(params["state_dir"], "restore_proofs", self.remote.host, params["cluster"])
        self.proofs = ReturnedProofs(kept, self.remote, self.there)
        self.proofs.stand_in_for(local)
        self.labels: set[str] = set()
        self.wal_here = os.path.join(scratch, "wal_archive") if self.wal_there else ""
        super().__init__({**params, "repository": local.root, "wal_archive": self.wal_here})

    def describe(self, target: Target, label: str = "") -> None:
        """Bring the description of the backup to start from, those it builds on, and the WAL that leads on from it."""
        raw = self._descriptions()
        self.labels = set(raw)
        sound = {name: found for name, text in raw.items() if (found := _parsed(name, text))}
        if not sound:
            return
        chosen = _choose(list(sound.values()), target, label)
        if chosen["engine"] != "core":
            refuse(
                "repository_ssh",
                expected="backups of the engine core",
                observed=f"{chosen['label']} is one of {chosen['engine']}",
                advice=f"{chosen['engine']} reaches a repository on another host by itself: name that host in its "
                f"configuration here (repo1-host), copy {self.there}, which holds the rest, to a repository here, and "
                "leave repository_ssh empty.",
            )
        self.params.update(restic_there(chosen, self.params, self.remote))
        for name in {*chosen["chain"], *(one for one in raw if one > chosen["label"] and one not in sound)}:
            if name in sound:
                self._copy(name, only=_DESCRIPTION)
            else:
                os.mkdir(os.path.join(self.local.directory, name), 0o700)
                with open(os.path.join(self.local.directory, name, METADATA), "wb") as stream:
                    stream.write(raw[name].encode("latin-1"))
        if self.wal_here and target.kind != "backup":
            self._fetch_wal(chosen)

    def fetch(self, backup: Backup, part: Part) -> float | None:
        began = time.monotonic()
        sizes = {label: self.files.tree_bytes(os.path.join(self.there, label)) for label in backup.chain}
        needed = sum(sizes.values()) + _MARGIN_BYTES
        free = self.local.free_bytes()
        room = part.require(
            f"room for what is fetched from {self.remote.host}",
            free >= needed,
            expected=f"at least {human_bytes(needed)} free",
            observed=f"{human_bytes(free)} free",
            advice="Free space in the scratch directory, or set it to a larger file system.",
        )
        if not room:
            return None
        for label in backup.chain:
            shutil.rmtree(os.path.join(self.local.directory, label))
            self._copy(label)
        seconds = time.monotonic() - began
        part.metric("repository_fetch_seconds", round(seconds, 3), "seconds")
        part.metric("repository_fetched_bytes", sum(sizes.values()), "bytes")
        part.require(
            f"backup fetched from {self.remote.host}",
            True,
            expected="every file as it was read there, by its SHA-256",
            observed=f"{human_bytes(sum(sizes.values()))} in {len(sizes)} backup(s)",
        )
        return seconds

    def bring_back_proofs(self, part: Part) -> None:
        if self.params["repository_ssh"]["read_only"]:
            self.proofs.forget_others(self.labels)
        else:
            self.proofs.bring_back(self.local, self.labels, part)

    def _descriptions(self) -> dict[str, str]:
        found = self._ask(_LIST_BACKUPS, self.there)
        return {str(name): str(text) for name, text in found.items() if not name.startswith(".")}

    def _ask(self, program: str, path: str) -> t.Any:
        return json.loads(run_there(self.remote, program, json.dumps(path)))

    def _copy(self, label: str, only: str = r"(?s:.*)") -> None:
        try:
            copied = self.files.copy_tree(
                os.path.join(self.there, label), os.path.join(self.local.directory, label), only
            )
        except OSError as error:
            raise _not_read(self.remote, error) from None
        if copied.unreadable or copied.changing:
            raise _not_read(self.remote, f"{(copied.unreadable + copied.changing)[0]} of {label}")

    def _fetch_wal(self, chosen: t.Mapping[str, t.Any]) -> None:
        """Segments from the start of the *chosen* backup on, and the histories of all timelines."""
        segment_bytes = int(chosen["settings"]["wal_segment_size"])
        start = segment_name(1, parse_lsn(chosen["start_lsn"]), segment_bytes)[8:]
        identifier = str(chosen["system_identifier"])
        directory = os.path.join(self.wal_there, identifier)
        listed = self._ask(_LIST_FILES, directory)
        wanted = [(path, size) for path, size in listed if _is_wanted(path, start)]
        needed, free = sum(size for _path, size in wanted) + _MARGIN_BYTES, self.local.free_bytes()
        if free < needed:
            raise MaintenanceError(
                f"fetch WAL from {self.remote.host}",
                where=self.local.root,
                expected=f"at least {human_bytes(needed)} free",
                observed=f"{human_bytes(free)} free",
                advice="Free space in the scratch directory, or set it to a larger file system.",
            )
        os.mkdir(self.wal_here, 0o700)
        try:
            # Of a name, what comes after the timeline says where in the WAL it is.
            newer = "|".join(f"{start[:end]}[{_above(start[end])}][0-9A-F]*" for end in range(16) if start[end] != "F")
            pattern = rf"[0-9A-F]{{8}}(/[0-9A-F]{{8}}({start}|{newer})(\..*)?|/[0-9A-F]{{8}}\.history)?"
            self.files.copy_tree(directory, os.path.join(self.wal_here, identifier), pattern)
        except OSError as error:
            raise _not_read(self.remote, error) from None


def restic_there(chosen: t.Mapping[str, t.Any], params: t.Mapping[str, t.Any], remote: Login) -> dict[str, t.Any]:
    """Options that lead to a restic repository which was a directory of that host; none when there are some already."""
    path = str((chosen.get("stores") or {}).get("restic", {}).get("repository", ""))
    if not path.startswith("/") or params["restic_repository"] not in ("", path) or os.path.exists(path):
        return {}
    host = f"[{remote.host}]" if ":" in remote.host else remote.host
    login = {"port": remote.port, "key_file": remote.key_file, "known_hosts": remote.known_hosts}
    return {"restic_repository": f"sftp:{remote.user}@{host}:{path}", "restic_ssh": login}


def _is_wanted(path: str, start: str) -> bool:
    name = os.path.basename(path)
    return name.endswith(".history") or name[8:24] >= start


def _above(digit: str) -> str:
    digits = "0123456789ABCDEF"
    return digits[digits.index(digit) + 1 :]


def _parsed(name: str, text: str) -> dict[str, t.Any] | None:
    try:
        metadata = parse_metadata(text.encode("latin-1"))
    except ValueError:
        return None
    return metadata if metadata.get("label") == name else None


def _choose(backups: list[dict[str, t.Any]], target: Target, label: str) -> dict[str, t.Any]:
    """The newest backup that *target* can be reached from, as far as is described; or the one named *label*."""
    backups.sort(key=lambda one: str(one["label"]))
    if label:
        found = [one for one in backups if one["label"] == label]
    elif target.kind == "time":
        found = [one for one in backups if parse_time(one["restore_point"]["time"]) <= target.time]
    elif target.kind == "lsn":
        found = [one for one in backups if parse_lsn(one["stop_lsn"]) <= target.lsn]
    else:
        found = backups
    if not found:
        refuse(
            "backup" if label else "target",
            expected="a backup in the repository that was finished before it",
            observed=label or str(target),
        )
    return found[-1]


def _not_read(remote: Login, error: object) -> MaintenanceError:
    return MaintenanceError(
        _WHAT,
        where=str(remote),
        expected="files that the account there may read, and that stay as they are meanwhile",
        observed=str(error),
        advice="Let repository_ssh.user read the repository; run it again when no backup is being made or expired.",
    )


@contextlib.contextmanager
def opened(params: t.Mapping[str, t.Any], base: str, target: Target, label: str = "") -> t.Iterator[Source]:
    """The repository of the options *params*: here, or fetched into a directory in *base* while the block runs."""
    if not params["repository_ssh"]:
        yield Source(dict(params))
        return
    prepare_base(base, live_cluster.ask(params).directories)
    holder = {"activity": "fetch from another host", "run": params["run_id"]}
    with scratch_directory(base, holder) as scratch:
        source = RemoteSource(params, scratch)
        source.describe(target, label)
        yield source
