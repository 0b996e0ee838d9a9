# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What restore tests on this host proved of backups in a repository on another: kept here, and brought back there.

Retention and verification run where the repository is, and heed only what they find in it. The directory of proofs
here takes the place of the one in the repository that was fetched; so what is proven, or disproven, is kept even if we
die, and what could not be brought back is brought by the next run. ``<directory>/sent.json`` says what is there now.
"""

from __future__ import annotations

import json
import os
import re
import typing as t

from ..backup.repository import LABEL, Repository
from ..backup.wal.archiving import source as source_of
from ..errors import MaintenanceError
from ..files import read_json, write_json
from ..result import Part
from ..ssh.login import Login
from ..ssh.openssh import run_there
from . import proof_receiver

_SENT = "sent.json"
_FILE = re.compile(rf"(?P<label>{LABEL.pattern})(\.damage)?\.json")
_WHAT = "bring proofs back to the backup repository"

Documents = t.Dict[str, t.Dict[str, t.Any]]


class ReturnedProofs:
    """The proofs of backups in the directory *there* of *remote*, kept in *directory* of this host."""

    def __init__(self, directory: str, remote: Login, there: str) -> None:
        self.directory = directory
        self.remote = remote._replace(purpose=_WHAT)
        self.there = there
        os.makedirs(directory, mode=0o700, exist_ok=True)

    def stand_in_for(self, repository: Repository) -> None:
        """Let *repository*, which was fetched, have its proofs here."""
        os.symlink(self.directory, os.path.dirname(repository.proof_path("any")))

    def bring_back(self, repository: Repository, labels: t.Container[str], part: Part) -> None:
        """Put the proofs where the backups are, and record in *part* whether that could be done.

        *labels* are those of all backups there, and *repository* holds those of them that were fetched.
        """
        self.forget_others(labels)
        ours = self._documents(repository)
        withdrawn = {name: entry for name, entry in self._sent().items() if name not in ours}
        if not ours and not withdrawn:
            return
        refused, outcomes = self._ask(ours, withdrawn)
        part.check(
            f"proofs in the repository on {self.remote.host}",
            "warned" if refused else "passed",
            expected="what was proven here, for retention and backup_verification there to heed",
            observed=f"not put there: {refused}" if refused else _in_words(outcomes, withdrawn),
            advice=f"Let {self.remote.user} be the owner of the repository, or run restore_test where the repository "
            "is. Where that account is meant to read only, set read_only in repository_ssh. What was proven is kept "
            "here, but nobody knows of it there.",
        )
        if not refused:
            # What is damaged there is for those to judge who read it there: it is not withdrawn.
            self._note({name: entry for name, entry in ours.items() if "problems" not in entry})

    def forget_others(self, labels: t.Container[str]) -> None:
        """Forget what was proven of backups other than *labels*: they went."""
        for label, name in self._names():
            if label not in labels:
                os.unlink(os.path.join(self.directory, name))
        self._note({name: entry for name, entry in self._sent().items() if entry["label"] in labels})

    def _documents(self, repository: Repository) -> Documents:
        """What there is to tell, by the names of the files; of damage, what was found in *repository* itself."""
        hashes = {backup.label: backup.metadata["sha256"] for backup in repository.backups()}
        found: Documents = {}
        for label, name in self._names():
            entry = _read(os.path.join(self.directory, name))
            if "problems" in entry and label in hashes:
                found[name] = {**entry, "backup_sha256": hashes[label]}
            elif "proven_at" in entry:
                found[name] = entry
        return found

    def _names(self) -> list[tuple[str, str]]:
        matches = [_FILE.fullmatch(name) for name in sorted(os.listdir(self.directory))]
        return [(found["label"], found[0]) for found in matches if found]

    def _sent(self) -> Documents:
        return t.cast(Documents, _read(os.path.join(self.directory, _SENT)))

    def _note(self, sent: Documents) -> None:
        if sent != self._sent():
            write_json(os.path.join(self.directory, _SENT), sent)

    def _ask(self, ours: Documents, withdrawn: Documents) -> tuple[str, dict[str, str]]:
        """Why they could not be put there, and what became of each when they could."""
        repository, cluster = os.path.split(self.there)
        order = {"repository": repository, "cluster": cluster, "put": ours, "withdrawn": withdrawn}
        program = source_of(proof_receiver).decode()
        try:
            answer = json.loads(run_there(self.remote, program, json.dumps(order)))
        except MaintenanceError as error:
            return error.observed, {}
        return answer.get("refused", ""), answer.get("outcomes", {})


def _read(path: str) -> dict[str, t.Any]:
    try:
        found = read_json(path)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _in_words(outcomes: t.Mapping[str, str], withdrawn: t.Collection[str]) -> str:
    count = list(outcomes.values()).count
    words = [f"{count(proof_receiver.PUT)} put there", f"{count(proof_receiver.KNOWN)} known there"]
    if count(proof_receiver.GONE):
        words.append(f"{count(proof_receiver.GONE)} of backups that went meanwhile")
    if withdrawn:
        words.append(f"{len(withdrawn)} disproven and withdrawn")
    return ", ".join(words)
