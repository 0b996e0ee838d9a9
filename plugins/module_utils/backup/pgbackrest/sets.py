# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The sets (backups, in its words) that pgBackRest keeps, and what our catalogue remembers of each."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import typing as t

from ...errors import MaintenanceError
from ...files import sha256_of
from ..repository import Backup
from ..wal.positions import segments_between
from .tool import Listed, Tool
from .verdict import ARGUMENTS, Verdict, read_verdict
from .wal import PgbackrestWal

# In the catalogue, beside backup.json: the names and sizes of the files of the set, and the hashes of its manifests.
LISTING = "pgbackrest.json"
_MANIFESTS = ("backup.manifest", "backup.manifest.copy")
_REMOVED = re.compile(r"remove archive, (start = \w+, stop = \w+)")
# From this release on a single set can be verified.
_VERIFIES_SETS = (2, 55)


class StillNeededError(MaintenanceError):
    """Something builds on what was to be removed."""


class Sets:
    """What the stanza of *tool* holds."""

    def __init__(self, tool: Tool) -> None:
        self.tool = tool
        self.words = f"stanza {tool.access.stanza} of pgBackRest"
        self._verdicts: dict[tuple[str, ...], Verdict] = {}
        self._archives: dict[str, PgbackrestWal] = {}

    @functools.cached_property
    def info(self) -> dict[str, t.Any]:
        """What pgBackRest says of the stanza, as it was when first asked."""
        return self.tool.info()

    @functools.cached_property
    def files(self) -> dict[str, Listed]:
        """The files of all sets, by their paths below the directory of the stanza."""
        return self.tool.files(f"backup/{self.tool.access.stanza}")

    def forget(self) -> None:
        """Ask anew the next time."""
        for name in ("info", "files"):
            self.__dict__.pop(name, None)
        self._verdicts.clear()
        self._archives.clear()

    def every(self) -> list[dict[str, t.Any]]:
        return list(self.info.get("backup", []))

    def by_annotation(self, label: str) -> dict[str, t.Any] | None:
        """The set that was made for our backup *label*, asked for anew."""
        self.forget()
        found = [entry for entry in self.every() if (entry.get("annotation") or {}).get("wellkept") == label]
        return found[-1] if found else None

    def newest(self, *, full: bool = False) -> str:
        """The label of the newest set, or of the newest full one."""
        self.forget()
        found = [entry["label"] for entry in self.every() if entry["type"] == "full" or not full]
        return str(found[-1]) if found else ""

    def describe(self, entry: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
        """What ``backup.json`` remembers of the set *entry*, so that it can be found again, from another host too."""
        access = self.tool.access
        database = next(db for db in self.info["db"] if db["id"] == entry["database"]["id"])
        return {
            "label": entry["label"],
            "stanza": access.stanza,
            "config": access.config,
            "user": access.user,
            "host": access.host,
            "host_user": access.host_user,
            "host_config": access.host_config,
            "prior": entry["prior"],
            "archive_id": f"{database['version']}-{database['id']}",
            "encrypted": self.info.get("cipher", "none") != "none",
            "version": entry["backrest"]["version"],
            "restored_bytes": entry["info"]["size"],
            "stored_bytes": entry["info"]["repository"]["delta"],
        }

    def listing(self, label: str) -> dict[str, t.Any]:
        """What is in the set *label* now: sizes by path, and the SHA-256 of its manifests."""
        self.forget()
        path = f"backup/{self.tool.access.stanza}/{label}"
        return {
            "files": {path: listed.bytes for path, listed in sorted(self.files_of(label).items())},
            "manifests": {name: self.tool.digest(f"{path}/{name}") for name in _MANIFESTS},
        }

    def files_of(self, label: str) -> dict[str, Listed]:
        prefix = f"{label}/"
        return {path[len(prefix) :]: listed for path, listed in self.files.items() if path.startswith(prefix)}

    def wal(self, metadata: t.Mapping[str, t.Any]) -> PgbackrestWal:
        """The archive that the backup with this *metadata* goes on in."""
        remembered, identifier = metadata["pgbackrest"], str(metadata["system_identifier"])
        name = remembered["archive_id"]
        if name not in self._archives:
            self._archives[name] = PgbackrestWal(self.tool, name, identifier, encrypted=remembered["encrypted"])
        return self._archives[name]

    def live_wal(self, identifier: str) -> PgbackrestWal:
        """The archive that the server of this *identifier* writes to now."""
        self.forget()
        database = next(db for db in reversed(self.info["db"]) if str(db["system-id"]) == identifier)
        encrypted = self.info.get("cipher", "none") != "none"
        return PgbackrestWal(self.tool, f"{database['version']}-{database['id']}", identifier, encrypted=encrypted)

    def looks_like(self, label: str) -> Listed:
        """What tells whether anything of the set *label* was changed, as far as names, sizes and times tell."""
        listed = self.files_of(label)
        state = json.dumps(sorted((path, one.bytes, one.time) for path, one in listed.items()))
        return Listed(
            sum(one.bytes for one in listed.values()),
            max((one.time for one in listed.values()), default=0),
            st_ino=_number(state),
        )

    def verdict(self, backups: t.Sequence[Backup]) -> Verdict:
        """What pgBackRest says when it reads the sets of *backups*; before 2.55 it reads all that it has."""
        labels = tuple(sorted(backup.metadata["pgbackrest"]["label"] for backup in backups))
        if self.tool.version < _VERIFIES_SETS:
            return self._verdict(())
        found = [self._verdict((label,)) for label in labels]
        return Verdict(
            {label: problems for one in found for label, problems in one.backups.items()},
            [words for one in found for words in one.archive],
            list(dict.fromkeys(words for one in found for words in one.general)),
            sum(one.wal_checked for one in found),
        )

    def _verdict(self, labels: tuple[str, ...]) -> Verdict:
        if labels not in self._verdicts:
            chosen = [f"--set={label}" for label in labels]
            done = self.tool.run("verify", *ARGUMENTS, *chosen, what="verify with pgBackRest")
            self._verdicts[labels] = read_verdict(done.stdout, done.stderr)
        return self._verdicts[labels]

    def expire(self, label: str) -> None:
        """Remove the set *label*, if it is there, and see that it is gone; nothing else may build on it."""
        self.forget()
        known = [entry["label"] for entry in self.every()]
        if label not in known:
            return
        others = [e["label"] for e in self.every() if label in (e["reference"] or []) and e["label"] != label]
        if others:
            raise StillNeededError(
                f"expire the set {label} of pgBackRest",
                where=self.words,
                expected="nothing that builds on it",
                observed=f"{', '.join(others)} does",
                advice="Backups that pgBackRest made by itself are not ours to remove: pgbackrest expire --set=…",
            )
        done = self.tool.run("expire", f"--set={label}", what=f"expire the set {label} of pgBackRest")
        self.forget()
        if label in [entry["label"] for entry in self.every()]:
            raise self.tool.failed(f"expire the set {label} of pgBackRest", 0, done.stderr or "it is still there")

    def remove_leftover(self, label: str) -> None:
        """Remove the set of our backup *label*, which did not come about; what cannot be now, a later run removes."""
        with contextlib.suppress(MaintenanceError):
            self.expire_backup(label)

    def expire_backup(self, label: str) -> None:
        """Remove the set of our backup *label*, if there is one."""
        if self.tool.access.host:
            self._refuse_while_at_work()
        entry = self.by_annotation(label)
        if entry:
            self.expire(entry["label"])

    def _refuse_while_at_work(self) -> None:
        """Raise MaintenanceError while the repository's host goes on with a backup whose run was killed on this one."""
        self.tool.run("expire", "--repo1-retention-full=9999999", what="see that pgBackRest is not at work")

    def unknown(self, labels: t.Container[str]) -> list[str]:
        """The sets that were made for backups of ours which are not among *labels*."""
        made = [(entry["label"], (entry.get("annotation") or {}).get("wellkept")) for entry in self.every()]
        return [name for name, label in made if label and label not in labels]

    def thin_out_wal(self) -> str:
        """Remove WAL from before the oldest set, which no restore can use; returns what went, in words."""
        self.forget()
        fulls = [entry["label"] for entry in self.every() if entry["type"] == "full"]
        if not fulls:
            return ""
        kept = [f"--repo1-retention-archive={len(fulls)}", "--repo1-retention-archive-type=full"]
        options = [*kept, "--repo1-retention-full=9999999", "--log-level-console=info"]
        done = self.tool.run("expire", *options, what="remove WAL that no backup needs")
        return "; ".join(_REMOVED.findall(done.stdout))


def _number(text: str) -> int:
    """A number of 48 bits that stands for *text*."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")


def set_problems(sets: Sets, backup: Backup) -> list[str]:
    """What is wrong with the set of *backup* as far as it shows without reading it."""
    remembered = backup.metadata["pgbackrest"]
    label = remembered["label"]
    entry = next((entry for entry in sets.every() if entry["label"] == label), None)
    if entry is None:
        return [f"pgBackRest does not list its set {label} any more"]
    problems = [f"pgBackRest found errors in pages when it made {label}"] if entry.get("error") else []
    if entry["prior"] != remembered["prior"]:
        problems.append(f"pgBackRest's set {label} builds on {entry['prior']} instead of {remembered['prior']}")
    if (entry.get("annotation") or {}).get("wellkept") != backup.label:
        problems.append(f"pgBackRest's set {label} is another one: its annotation does not name {backup.label}")
    return [*problems, *_file_problems(sets, backup), *_wal_problems(sets, backup)]


def _file_problems(sets: Sets, backup: Backup) -> list[str]:
    label = backup.metadata["pgbackrest"]["label"]
    recorded = _recorded(backup).get("files", {})
    present = {path: listed.bytes for path, listed in sets.files_of(label).items()}
    missing = [f"{label}/{path} is missing" for path in sorted(recorded.keys() - present.keys())]
    foreign = [f"{label}/{path} does not belong to the set" for path in sorted(present.keys() - recorded.keys())]
    cut = [
        f"{label}/{path} has {present[path]} bytes instead of {size}"
        for path, size in sorted(recorded.items())
        if path in present and present[path] != size
    ]
    return missing + cut + foreign


def manifest_problems(sets: Sets, backup: Backup) -> list[str]:
    """Manifests that are not as they were: pgBackRest reads the other of the two, and says nothing."""
    label, stanza = backup.metadata["pgbackrest"]["label"], sets.tool.access.stanza
    problems = []
    for name, digest in _recorded(backup).get("manifests", {}).items():
        try:
            if sets.tool.digest(f"backup/{stanza}/{label}/{name}") != digest:
                problems.append(f"{label}/{name} has another content than was written (its SHA-256 differs)")
        except MaintenanceError as error:
            problems.append(f"{label}/{name}: {error.observed}")
    return problems


def _wal_problems(sets: Sets, backup: Backup) -> list[str]:
    """Segments between the start of the backup and its point that are not in the archive."""
    metadata = backup.metadata
    size = int(metadata["settings"]["wal_segment_size"])
    needed = segments_between(metadata["timeline"], metadata["start_lsn"], metadata["restore_point"]["lsn"], size)
    present = sets.wal(metadata).names()
    return [f"WAL segment {name} is missing" for name in needed if name not in present]


def _recorded(backup: Backup) -> dict[str, t.Any]:
    """The listing as it was written; {} when it is not any more, which the examination of the backup tells."""
    expected = {entry["path"]: entry["sha256"] for entry in backup.metadata["files"]}
    path = backup.path(LISTING)
    try:
        if sha256_of(path) != expected.get(LISTING):
            return {}
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), encoding="utf-8") as stream:
            found: dict[str, t.Any] = json.load(stream)
            return found
    except (OSError, ValueError):
        return {}
