# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where backups are kept, how one is described, and what is in the repository.

``<repository>/<cluster>/<label>/`` is a backup: it has this name only when it is complete and verified. Beside it are
``.partial-<label>`` (being written, or left by a process that died), ``.expired-<label>`` (being removed),
``proofs/<label>.json`` (what a restore test proved; ``<label>.damage.json``: what was found wrong in it), and
``verified/<label>.json`` (what was read of it, and when). Directories are 0700 and files 0600.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import typing as t
from datetime import datetime, timezone

from ..errors import MaintenanceError
from ..files import read_json, sync_directory, write_atomically, write_json
from ..lock import exclusive, is_free, shared

# Of modules that read backups.
READING_REPOSITORY: dict[str, dict[str, t.Any]] = {
    "cluster": {"type": "str", "default": "main"},
    "repository": {"type": "path", "required": True},
    "bin_dir": {"type": "str", "default": ""},
}

METADATA = "backup.json"
LOCK = "lock"
FORMAT = 1
PARTIAL = ".partial-"
EXPIRED = ".expired-"
_USE = ".use-"
# Rows that lead a restore to a point in time; see wal_markers.
MARKERS = "wal_markers.json"
# What belongs to the backups: our lock, what restore tests proved, what was read.
_BESIDE = (".lock", "proofs", "verified", MARKERS)
LABEL = re.compile(r"\d{8}T\d{6}Z-(full|incr)-[0-9a-f]{4}")
_CLUSTER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,62}")


class Backup(t.NamedTuple):
    """A complete backup: where it is, and what its ``backup.json`` says."""

    label: str
    directory: str
    metadata: dict[str, t.Any]

    @property
    def type(self) -> str:
        """``full`` or ``incremental``."""
        return str(self.metadata["type"])

    @property
    def holds_base(self) -> bool:
        """Whether base and WAL are in the backup itself, not where its engine keeps them."""
        return str(self.metadata["engine"]) == "core"

    @property
    def lacks(self) -> dict[str, str]:
        """The stores that could not be saved when it was made, or not as a whole, each with the reason."""
        return dict(self.metadata.get("lacks") or {})

    @property
    def absent(self) -> tuple[str, ...]:
        """Those of them that it holds nothing of."""
        return tuple(name for name in self.lacks if name not in self.metadata["stores"])

    @property
    def chain(self) -> list[str]:
        """The labels that a restore needs, the full one first, this one last."""
        return list(self.metadata["chain"])

    @property
    def started(self) -> datetime:
        return parse_time(self.metadata["started"])

    @property
    def finished(self) -> datetime:
        return parse_time(self.metadata["finished"])

    def path(self, *parts: str) -> str:
        return os.path.join(self.directory, *parts)


class Damaged(t.NamedTuple):
    """Something under a backup's name whose ``backup.json`` cannot be believed."""

    label: str
    problem: str


class Repository:
    """The backups of one cluster."""

    def __init__(self, root: str, cluster: str) -> None:
        if not _CLUSTER.fullmatch(cluster):
            raise MaintenanceError(
                "name the cluster",
                expected="letters, digits, dot, dash and underscore, at most 63",
                observed=repr(cluster),
                advice="Correct the option cluster.",
            )
        self.root = os.path.abspath(root)
        self.cluster = cluster
        self.directory = os.path.join(self.root, cluster)

    def prepare(self) -> None:
        """Create the directories, private; refuse ones that others could have prepared for us."""
        for directory in (self.root, self.directory):
            os.makedirs(directory, mode=0o700, exist_ok=True)
            status = os.lstat(directory)
            ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022
            if not ours:
                raise MaintenanceError(
                    "use the backup repository",
                    where=directory,
                    expected="a directory (no link) that belongs to the user who makes the backups, and that no other "
                    "can write to",
                    observed=f"mode {stat.S_IMODE(status.st_mode):04o}, owner uid {status.st_uid}, ours {os.geteuid()}"
                    + ("" if stat.S_ISDIR(status.st_mode) else ", not a directory"),
                    advice=f"chown and chmod 0700 {directory}, or choose another repository.",
                )

    @contextlib.contextmanager
    def locked(self, holder: dict[str, t.Any]) -> t.Iterator[None]:
        """Hold the repository against other writers; raises MaintenanceError that names the holder."""
        with exclusive(os.path.join(self.directory, ".lock"), holder, f"the backup repository of {self.cluster}"):
            yield

    @contextlib.contextmanager
    def in_use(self, label: str, holder: dict[str, t.Any]) -> t.Iterator[None]:
        """Keep the backup *label* from being expired while the block reads it; others may read it too."""
        with shared(self._use_mark(label), holder):
            yield

    def is_in_use(self, label: str) -> bool:
        return not is_free(self._use_mark(label))

    def _use_mark(self, label: str) -> str:
        return os.path.join(self.directory, f"{_USE}{label}.lock")

    @contextlib.contextmanager
    def new(self, label: str, holder: dict[str, t.Any]) -> t.Iterator[str]:
        """A directory to write the backup *label* to; it gets its final name when the block ends well, else it goes.

        Should we die, its lock frees itself, and so the next run knows that it is a leftover.
        """
        directory = os.path.join(self.directory, PARTIAL + label)
        os.mkdir(directory, 0o700)
        try:
            with exclusive(os.path.join(directory, LOCK), holder, f"the new backup {label}"):
                yield directory
                final = os.path.join(self.directory, label)
                os.rename(directory, final)
                sync_directory(self.directory)
                os.unlink(os.path.join(final, LOCK))
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise

    def backups(self) -> list[Backup]:
        """The backups whose ``backup.json`` is sound, oldest first."""
        found = [entry for entry in self._entries() if isinstance(entry, Backup)]
        # Of two in one second, the last digits of the label are chance.
        return sorted(found, key=lambda backup: (backup.label[:16], backup.metadata.get("finished", ""), backup.label))

    def damaged(self) -> list[Damaged]:
        """What has a backup's name, but no ``backup.json`` that can be believed."""
        return [entry for entry in self._entries() if isinstance(entry, Damaged)]

    def _entries(self) -> list[Backup | Damaged]:
        return [self._entry(name) for name in self._names() if LABEL.fullmatch(name)]

    def _entry(self, label: str) -> Backup | Damaged:
        try:
            return self.backup(label)
        except MaintenanceError as error:
            return Damaged(label, error.observed)

    def backup(self, label: str) -> Backup:
        """The backup *label*; raises MaintenanceError when its ``backup.json`` is missing or not as it was written."""
        directory = os.path.join(self.directory, label)
        try:
            metadata = parse_metadata(_read(os.path.join(directory, METADATA)))
            if metadata.get("label") != label:
                raise ValueError(f"it describes the backup {metadata.get('label')}")
        except (OSError, ValueError) as error:
            observed = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise MaintenanceError(
                "read the description of a backup",
                where=os.path.join(directory, METADATA),
                expected="the file as it was written",
                observed=observed,
                advice="Do not rely on this backup; make a new full one, and find out what damages the repository.",
            ) from None
        return Backup(label, directory, metadata)

    def strangers(self) -> list[str]:
        """Names in the directory of the cluster that are neither a backup's nor of what belongs to backups."""
        return [
            name
            for name in self._names()
            if not LABEL.fullmatch(name) and name not in _BESIDE and not name.startswith((PARTIAL, EXPIRED, _USE))
        ]

    def leftovers(self) -> list[str]:
        """Names of directories that a process which died left behind: half written, or half removed."""
        candidates = [name for name in self._names() if name.startswith((PARTIAL, EXPIRED))]
        return [name for name in candidates if is_free(os.path.join(self.directory, name, LOCK))]

    def remove_leftover(self, name: str) -> int:
        """Remove the leftover *name*, and return the bytes that it took."""
        path = os.path.join(self.directory, name)
        size = bytes_used(path)
        shutil.rmtree(path)
        return size

    def expire(self, label: str, remove_elsewhere: t.Callable[[], None] = lambda: None) -> int:
        """Remove the backup *label*, its proof and, by *remove_elsewhere*, what it holds outside of the repository.

        Killed half-way, it is no backup any more but a leftover.
        """
        doomed = os.path.join(self.directory, EXPIRED + label)
        os.rename(os.path.join(self.directory, label), doomed)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.proof_path(label))
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._use_mark(label))
        self.note_damage(label, [])
        remove_elsewhere()
        return self.remove_leftover(EXPIRED + label)

    def proof_path(self, label: str) -> str:
        return os.path.join(self.directory, "proofs", f"{label}.json")

    def write_proof(self, backup: Backup, facts: dict[str, t.Any]) -> str:
        """Record that a restore test proved *backup*; returns the path of the proof."""
        path = self.proof_path(backup.label)
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        identity = {"label": backup.label, "backup_sha256": backup.metadata["sha256"]}
        write_json(path, {"proven_at": now(), **facts, **identity})
        return path

    def proof(self, backup: Backup) -> dict[str, t.Any] | None:
        """What was proven of exactly this *backup*, or None."""
        try:
            found = read_json(self.proof_path(backup.label))
        except ValueError:
            return None
        if isinstance(found, dict) and found.get("backup_sha256") == backup.metadata["sha256"]:
            return found
        return None

    def note_damage(self, label: str, problems: t.Sequence[str]) -> None:
        """Remember what a reading of every byte found wrong with *label*; forget it when nothing is wrong any more."""
        path = self._damage_path(label)
        if problems:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            write_json(path, {"label": label, "found_at": now(), "problems": list(problems[:50])})
            return
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)

    def noted_damage(self, label: str) -> str:
        """When and what was found wrong with *label* by a reading of every byte; empty when nothing was."""
        try:
            found = read_json(self._damage_path(label))
            return f"{found['problems'][0]} (found at {found['found_at']})"
        except (ValueError, KeyError, IndexError, TypeError):
            return ""

    def _damage_path(self, label: str) -> str:
        return os.path.join(self.directory, "proofs", f"{label}.damage.json")

    def proven(self) -> list[str]:
        """Labels of the backups that a restore test proved, oldest first."""
        return [backup.label for backup in self.backups() if self.proof(backup)]

    def free_bytes(self) -> int:
        """What we may still write to the file system of the repository."""
        directory = self.directory
        while not os.path.isdir(directory):
            directory = os.path.dirname(directory)
        status = os.statvfs(directory)
        return status.f_bavail * status.f_frsize

    def _names(self) -> list[str]:
        try:
            return sorted(os.listdir(self.directory))
        except FileNotFoundError:
            return []


def new_label(backup_type: str, started: datetime) -> str:
    """``20261121T093000Z-full-1a2b``; four random digits, so that two in one second differ."""
    kind = "full" if backup_type == "full" else "incr"
    return f"{started.astimezone(timezone.utc):%Y%m%dT%H%M%SZ}-{kind}-{secrets.token_hex(2)}"


# Hashes of descriptions that were found to be so: a run reads the same many times, and many tables make it long.
_AS_WRITTEN: set[bytes] = set()


def serialise_metadata(metadata: dict[str, t.Any]) -> bytes:
    """The one form in which *metadata* is written; it holds its own hash, so that any flipped bit is found."""
    content = {key: entry for key, entry in metadata.items() if key != "sha256"}
    digest = hashlib.sha256(_canonical(content)).hexdigest()
    return _canonical({**content, "sha256": digest})


def parse_metadata(raw: bytes) -> dict[str, t.Any]:
    """What :func:`serialise_metadata` wrote; raises ValueError when it is not exactly that, to the last bit."""
    try:
        metadata = json.loads(raw)
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON any more") from None
    if not isinstance(metadata, dict) or not _is_as_written(metadata, raw):
        raise ValueError("it is not as it was written: its own hash does not fit")
    if metadata.get("format") != FORMAT:
        raise ValueError(f"it has the format {metadata.get('format')}, this program reads {FORMAT}")
    return metadata


def _is_as_written(metadata: dict[str, t.Any], raw: bytes) -> bool:
    digest = hashlib.sha256(raw).digest()
    if digest not in _AS_WRITTEN:
        if serialise_metadata(metadata) != raw:
            return False
        _AS_WRITTEN.add(digest)
    return True


def write_metadata(directory: str, metadata: dict[str, t.Any]) -> None:
    write_atomically(os.path.join(directory, METADATA), serialise_metadata(metadata))


def _canonical(document: dict[str, t.Any]) -> bytes:
    return (json.dumps(document, sort_keys=True, indent=1) + "\n").encode("ascii")


def _read(path: str) -> bytes:
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as stream:
        return stream.read()


def bytes_used(directory: str) -> int:
    """Sum of the sizes of the files below *directory*; links are not followed, what vanishes is not counted."""
    total = 0
    for parent, _directories, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(parent, name)).st_size
    return total


def now() -> str:
    return format_time(datetime.now(timezone.utc))


def format_time(moment: datetime) -> str:
    return f"{moment.astimezone(timezone.utc):%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def parse_time(text: str) -> datetime:
    """The moment in ``2026-11-21T09:30:00.123Z``."""
    form = "%Y-%m-%dT%H:%M:%S.%fZ" if "." in text else "%Y-%m-%dT%H:%M:%SZ"
    return datetime.strptime(text, form).replace(tzinfo=timezone.utc)
