# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Application directories by restic: encrypted and deduplicated, in a repository here or, by SFTP, on another host.

What is in the backup itself is our own list of the files, with a SHA-256 of each, in ``restic/files.json``; the files
are in a snapshot of the restic repository, which is tagged with the label of the backup. Only snapshots with our tags
are ever forgotten: other people may use the repository, too.
"""

from __future__ import annotations

import contextlib
import os
import time
import typing as t

from ....errors import MaintenanceError, MissingToolError, UnavailableError
from ....files import sha256_of, write_json
from ....options import read_duration
from ....quantities import human_bytes
from ....result import Part
from ...contents import shown
from ...files import Copied, tree_bytes
from ...programs import Written
from ...remembered import Parts, Remembered
from ...repository import Backup, Repository
from ..application_files import Manifest, compare, lacking, read_manifest, refuse_to_hold, report_files
from ..store import Making, Restored, Saved, Store
from . import checking
from .location import Location, read_location
from .program import NoRepositoryError, Restic
from .pruning import prune
from .snapshot import Taken, save
from .tagging import snapshots_of, tags_for

MANIFEST = "restic/files.json"
# What an entry of the list of files takes, about.
_ENTRY_BYTES = 400

_READING: dict[str, dict[str, t.Any]] = {
    "restic_repository": {"type": "str", "default": ""},
    "restic_key_file": {"type": "path", "default": ""},
    "restic_ssh": {
        "type": "dict",
        "default": {},
        "options": {
            "port": {"type": "int", "default": 22},
            "key_file": {"type": "path", "default": ""},
            "known_hosts": {"type": "path", "default": ""},
        },
    },
}


class ResticFiles(Store):
    """The directories in the option ``files``, where ``files_engine`` is ``restic``."""

    name = "restic"
    holds_directories = True
    options: t.ClassVar[t.Mapping[str, t.Mapping[str, t.Any]]] = {
        "files_engine": {"type": "str", "choices": ["copy", "restic"], "default": "copy"},
        **_READING,
        "restic_prune_every": {"type": "str", "default": "7d"},
    }
    reading_options: t.ClassVar[t.Mapping[str, t.Mapping[str, t.Any]]] = _READING

    def __init__(self, params: t.Mapping[str, t.Any]) -> None:
        super().__init__(params)
        self.directories = [os.path.abspath(directory) for directory in params.get("files") or ()]
        self.taken: Taken | None = None
        self._opened: dict[str, Restic] = {}
        # Repositories of which something was forgotten now.
        self._forgotten: set[str] = set()

    @property
    def wanted(self) -> bool:
        return bool(self.directories) and self.params.get("files_engine") == "restic"

    # -- before a backup --

    def prepare(self, repository: Repository, part: Part) -> None:
        if self.params.get("database_host"):
            raise MaintenanceError(
                "back up application directories by restic",
                expected="directories of the host that this runs on",
                observed="database_host names another one",
                advice="Run the backup on the host of the files, or set files_engine to copy.",
            )
        refuse_to_hold(self.directories, repository.root)
        _refuse_links(self.directories)
        restic = self._open()
        if not restic.location.remote:
            refuse_to_hold(self.directories, restic.location.path)
        try:
            with _unavailable_otherwise():
                identity = restic.identity()
        except NoRepositoryError as missing:
            _refuse_to_begin_anew(restic.location, repository, missing)
        else:
            checking.report_noted_damage(Parts(repository, self.name, identity), restic.location.name, part)

    def plan(self) -> int:
        files = sum(len(names) for directory in self.directories for _path, _below, names in os.walk(directory))
        return files * _ENTRY_BYTES

    def foretell(self, repository: Repository, part: Part) -> None:
        restic = self._open()
        size = sum(tree_bytes(directory) for directory in self.directories)
        words = f"a snapshot of {len(self.directories)} directories, {human_bytes(size)} before deduplication"
        try:
            restic.identity()
        except NoRepositoryError:
            part.change("restic repository", restic.location.name, "absent", "would be made")
        part.change("restic snapshot", restic.location.name, "absent", words)

    # -- a backup --

    def create(self, making: Making) -> Saved:
        restic = self._open()
        os.mkdir(os.path.join(making.directory, self.name), 0o700)
        earlier = self._newest_manifest(making.earlier)
        with _unavailable_otherwise():
            identity = _begin(restic)
            self.taken = save(restic, self.directories, tags_for(making.label, making.repository.cluster), earlier)
        manifest = os.path.join(making.directory, MANIFEST)
        write_json(manifest, self.taken.listed.manifest)
        facts = {
            "repository": restic.location.name,
            "repository_id": identity,
            "snapshot": self.taken.snapshot,
            "data_added": self.taken.data_added,
        }
        written = {MANIFEST: Written(sha256_of(manifest), os.path.getsize(manifest))}
        copies = self.taken.listed.copies
        return Saved(facts, written, [_entry(copied) for copied in copies], lacking(copies))

    def _newest_manifest(self, earlier: t.Sequence[Backup]) -> Manifest:
        for backup in reversed(earlier):
            if self.facts_of(backup):
                with contextlib.suppress(MaintenanceError):
                    return read_manifest(backup, MANIFEST)
        return []

    def abandon(self, making: Making) -> None:
        self.expire(making.label, None)

    def report(self, part: Part) -> None:
        if not self.taken:
            return
        for copied in self.taken.listed.copies:
            report_files(copied, part)
        part.require(
            "restic snapshot",
            not self.taken.problems,
            expected="every file in a snapshot that restic finds complete",
            observed="; ".join(self.taken.problems[:5])
            or f"{self.taken.snapshot[:8]} in {self._open().location.name}, {human_bytes(self.taken.data_added)} added",
            advice="Do not rely on the files of this backup: run backup_verification, which says what is damaged.",
            problems=self.taken.problems[:50],
        )
        part.metric("restic_added_bytes", self.taken.data_added, "bytes")

    # -- afterwards --

    def verify(
        self, backups: t.Sequence[Backup], remembered: Remembered, part: Part, *, quick: bool = False
    ) -> dict[str, list[str]]:
        by_repository: dict[str, dict[str, t.Any]] = {}
        for backup in backups:
            facts = self.facts_of(backup)
            by_repository.setdefault(facts["repository_id"], {})[backup.label] = facts
        problems: dict[str, list[str]] = {}
        for ours in by_repository.values():
            facts = next(iter(ours.values()))
            try:
                restic = self._open_for(facts)
            except MaintenanceError as error:
                checking.report_not_opened(error, facts["repository"], part)
                continue
            problems.update(checking.verify(restic, ours, remembered, part, quick=quick))
        return problems

    def restore(self, backup: Backup, directory: str) -> Restored:
        facts = self.facts_of(backup)
        manifest = read_manifest(backup, MANIFEST)
        restic = self._open_for(facts)
        _refuse_another(restic, facts)
        # Which files it could not restore is seen by the comparison; its exit status alone says nothing.
        done = restic.run(
            "restore the files by restic", "restore", facts["snapshot"], "--target", directory,
            accept=range(256), timeout=restic.long_timeout,
        )  # fmt: skip
        restored = compare(manifest, directory)
        if done.returncode != 0:
            words = "; ".join(line.strip() for line in done.stderr.splitlines()[-3:])
            restored.problems.append(f"restic ended with {done.returncode}: {words}")
        return restored

    def expire(self, label: str, facts: t.Any) -> None:
        restic = self._open_for(facts) if facts else self._open()
        try:
            identity = restic.identity()
        except NoRepositoryError:
            if facts is None:
                return  # a killed run had not made it yet
            raise
        ids = snapshots_of(restic, label)
        restic.forget(ids)
        if ids:
            self._forgotten.add(identity)

    def tidy(self, repository: Repository, part: Part) -> None:
        """Remove from the restic repository what no snapshot needs any more, at most so often as the option says."""
        if not self.wanted:
            return
        every = read_duration(self.params, "restic_prune_every")
        restic = self._open()
        identity = restic.identity()
        memory = Parts(repository, self.name, identity)
        if identity in self._forgotten:
            memory.facts["forgotten"] = True
            memory.save()
        age = time.time() - memory.facts.get("pruned_at", 0)
        if every and memory.facts.get("forgotten") and not 0 <= age < every:
            prune(restic, memory, part)

    # -- opening --

    def _timeout(self) -> float:
        return read_duration(self.params, "timeout") if self.params.get("timeout") else 12 * 3600.0

    def _open(self, name: str = "") -> Restic:
        """The repository *name*, by default the one that the options say."""
        location = read_location(name or str(self.params.get("restic_repository") or ""), self.params.get("restic_ssh"))
        if location.name not in self._opened:
            cache = os.path.join(str(self.params.get("state_dir") or "/var/lib/wellkept"), "restic", "cache")
            key_file = str(self.params.get("restic_key_file") or "")
            self._opened[location.name] = Restic(location, key_file, cache, long_timeout=self._timeout())
        return self._opened[location.name]

    def _open_for(self, facts: t.Mapping[str, t.Any]) -> Restic:
        """The repository that holds the files of a backup with these *facts*; it may have moved since."""
        if self.params.get("restic_repository"):
            restic = self._open()
            with contextlib.suppress(NoRepositoryError):
                if restic.identity() == facts["repository_id"]:
                    return restic
        return self._open(facts["repository"])


@contextlib.contextmanager
def _unavailable_otherwise() -> t.Iterator[None]:
    """Whatever keeps restic from its work on the repository, the databases need none of it."""
    try:
        yield
    except (UnavailableError, MissingToolError):
        raise
    except MaintenanceError as error:
        raise UnavailableError.of(error) from None


def _begin(restic: Restic) -> str:
    """The id of the repository, which is made when there is none."""
    try:
        return restic.identity()
    except NoRepositoryError:
        restic.run("make the restic repository", "init")
        return restic.identity()


def _refuse_to_begin_anew(location: Location, repository: Repository, missing: NoRepositoryError) -> None:
    """A repository that backups are in does not vanish: what it lies on is not mounted, or was lost."""
    for backup in repository.backups():
        facts = backup.metadata.get("stores", {}).get(ResticFiles.name)
        if facts and facts["repository"] == location.name:
            raise UnavailableError(
                missing.what,
                where=location.name,
                expected=f"the repository that holds the files of {backup.label}",
                observed=missing.observed,
                advice="Mount what it lies on. When it is lost for good, let restic_repository name another place, so "
                "that a new one is made there.",
            )


def _refuse_another(restic: Restic, facts: t.Mapping[str, t.Any]) -> None:
    identity = restic.identity()
    if identity != facts["repository_id"]:
        raise MaintenanceError(
            "open the restic repository",
            where=restic.location.name,
            expected=f"the repository {facts['repository_id'][:16]}, which the backup was made in",
            observed=f"another one, {identity[:16]}",
            advice="Let restic_repository name the right one.",
        )


def _refuse_links(directories: t.Sequence[str]) -> None:
    for directory in directories:
        if os.path.islink(directory):
            raise MaintenanceError(
                "back up application directories by restic",
                where=directory,
                expected="a directory",
                observed=f"a link to {shown(os.readlink(directory))}, which restic would save instead of what is there",
                advice="List the directory that it leads to.",
            )


def _entry(copied: Copied) -> dict[str, t.Any]:
    return {
        "source": copied.source,
        "count": copied.files,
        "bytes": copied.bytes,
        "changing": [shown(path) for path in copied.changing],
    }
