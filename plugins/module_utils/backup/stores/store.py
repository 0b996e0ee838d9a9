# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What every store offers; creation, verification, retention and the restore test know no more of it than this.

A store saves one kind of thing beside the databases: application files by copy, files by restic, Redis, … It keeps
what it saves in the backup, below a directory that has its name, or elsewhere, and says in ``backup.json`` what it
takes to find that again.

=========  ============================================================================================================
prepare    refuse before anything is written what could not be saved, and put right what a killed run left
plan       how many bytes it will need in the backup
foretell   in check mode: say what would be done
create     save everything at the consistent point, while the databases are dumped beside it
abandon    take back what ``create`` did for a backup that does not come about
report     what saving showed, as checks, metrics and changes
verify     whether what it saved for some backups is still as it was; what lies in the backup is read with it anyway
restore    lay what a backup holds down in an empty directory, and hold it against what was recorded
expire     remove what it holds for a backup outside of it
tidy       after backups went: give back the space that they took outside of them
=========  ============================================================================================================

A store is made from the options of the module that uses it. To add one: a module beside this one, its class in
``registry.STORES``, its options (``Store.options``) in the modules' documentation.
"""

# ruff: noqa: B027 (not every store has something to do at each step)

from __future__ import annotations

import abc
import typing as t

from ...result import Part
from ..consistent_point import Point
from ..programs import Written
from ..remembered import Remembered
from ..repository import Backup, Repository


class Making(t.NamedTuple):
    """The backup in the making that a store adds to."""

    label: str
    repository: Repository
    # Where the backup is written to; a store writes to the directory of its name below, which it makes.
    directory: str
    # The point that everything in the backup shares; its LSN is in ``restore_point`` of ``backup.json``.
    point: Point
    # Complete backups, oldest first: to save only what changed.
    earlier: t.Sequence[Backup] = ()


class Saved(t.NamedTuple):
    """What a store saved."""

    # What ``backup.json`` remembers under ``stores/<name>``; "sizes" in it are held against those of earlier backups.
    facts: dict[str, t.Any]
    # Files in the backup that no manifest of their own accounts for, by their paths in it, as they were written.
    written: dict[str, Written]
    # Application directories: their source, and the count and bytes of their files.
    application_files: t.Sequence[dict[str, t.Any]] = ()
    # What of it could not be saved, in words; the backup is then not taken for whole.
    lacking: str = ""


class Restored(t.NamedTuple):
    """What laying down showed: no problems means that all of it is there as it was recorded."""

    problems: list[str]
    files: int
    bytes: int
    # Where each source lies now: {"/srv/uploads": "<directory>/srv/uploads"}.
    places: dict[str, str]


class Store(abc.ABC):
    """One kind of thing that is saved with the databases."""

    name: t.ClassVar[str]
    # Whether what it saves are directories of the application, each with its place below where it is restored to.
    holds_directories: t.ClassVar[bool] = False
    # Options of its own, for the argument specs of modules: of ``backup``, and of all that read what it saved.
    options: t.ClassVar[t.Mapping[str, t.Mapping[str, t.Any]]] = {}
    reading_options: t.ClassVar[t.Mapping[str, t.Mapping[str, t.Any]]] = {}

    def __init__(self, params: t.Mapping[str, t.Any]) -> None:
        self.params = params

    @property
    @abc.abstractmethod
    def wanted(self) -> bool:
        """Whether the options ask for it in new backups."""

    def facts_of(self, backup: Backup) -> t.Any:
        """What ``backup.json`` remembers of it; None when the backup holds nothing of this store."""
        return backup.metadata.get("stores", {}).get(self.name)

    def prepare(self, repository: Repository, part: Part) -> None:
        """Refuse, by MaintenanceError, what could not be saved, before anything is written.

        An UnavailableError says that it cannot be had now: the backup is then made without it.
        """

    def plan(self) -> int:
        """Bytes that it will need in the backup."""
        return 0

    def foretell(self, repository: Repository, part: Part) -> None:
        """Record in check mode what a backup would do outside of it."""

    @abc.abstractmethod
    def create(self, making: Making) -> Saved:
        """Save everything; raises MaintenanceError or OSError, and the backup then does not come about.

        An UnavailableError alone says that it cannot be had now: the backup then comes about without it.
        """

    def abandon(self, making: Making) -> None:
        """Take back what :meth:`create` did outside of the backup; its directory there is removed anyway."""

    @abc.abstractmethod
    def report(self, part: Part) -> None:
        """Record what :meth:`create` showed."""

    def verify(
        self, backups: t.Sequence[Backup], remembered: Remembered, part: Part, *, quick: bool = False
    ) -> dict[str, list[str]]:
        """Record in *part* what lies outside of *backups*; returns what is wrong with each, by their labels.

        *backups* are those that hold something of this store. *quick* reads no content (check mode).
        """
        return {}

    @abc.abstractmethod
    def restore(self, backup: Backup, directory: str) -> Restored:
        """Lay down what *backup* holds below *directory*, each source at its own path, and hold it against the records.

        Raises MaintenanceError when nothing could be laid down.
        """

    def expire(self, label: str, facts: t.Any) -> None:
        """Remove what it holds outside of the backup *label*, of which ``backup.json`` says *facts*.

        Of what a killed run left there may be no facts (None), and nothing to remove. Raises MaintenanceError when it
        cannot be removed now; the next run then tries again.
        """

    def tidy(self, repository: Repository, part: Part) -> None:
        """Give back the space of what went."""
