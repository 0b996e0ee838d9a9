# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What every backup engine offers; the module and the restore test know no more than this."""

from __future__ import annotations

import typing as t

from .repository import Backup, Repository


class Verification(t.NamedTuple):
    """What reading a backup showed: no problems means that every byte is as it was written."""

    label: str
    problems: list[str]
    bytes: int
    seconds: float
    depth: str

    @property
    def sound(self) -> bool:
        return not self.problems


class Engine:
    """One way to make, verify, restore and expire backups in a repository."""

    name = ""

    def __init__(self, repository: Repository) -> None:
        self.repository = repository

    def list(self) -> list[Backup]:
        """The backups that are there, oldest first."""
        return self.repository.backups()

    def create(self, *arguments: t.Any, **options: t.Any) -> Backup:
        """Make a backup; it appears in the repository only when it is complete and verified."""
        raise NotImplementedError

    def verify(self, label: str, *, quick: bool = False) -> Verification:
        """Read the backup *label* against its hashes; *quick* looks at names and sizes alone."""
        raise NotImplementedError

    def verify_chain(self, label: str, *, quick: bool = False) -> t.List[Verification]:
        """Verify all that a restore of *label* needs, the full backup first."""
        return [self.verify(member, quick=quick) for member in self.repository.backup(label).chain]

    def restore(self, label: str, directory: str, **options: t.Any) -> None:
        """Lay down the data directory of *label* in the empty *directory*; its WAL is still to be replayed."""
        raise NotImplementedError

    def expire(self, label: str) -> int:
        """Remove the backup *label*; returns the bytes that this freed."""
        return self.repository.expire(label)
