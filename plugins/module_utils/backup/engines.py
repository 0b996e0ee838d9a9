# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The engines that there are, by their names."""

from __future__ import annotations

import typing as t

from ..errors import MaintenanceError
from ..postgresql import find_bin_dir
from .core import CoreEngine
from .engine import Engine
from .pgbackrest.engine import PgbackrestEngine
from .repository import Backup, Repository

ENGINES: dict[str, type[Engine]] = {engine.name: engine for engine in (CoreEngine, PgbackrestEngine)}


def open_engine(
    name: str, repository: Repository, *, task: str, version: int, params: t.Mapping[str, t.Any], bin_dir: str = ""
) -> Engine:
    """The engine *name* for *task* on backups of a server of *version* (as in 180004), by a module's options *params*.

    Raises MissingToolError when a program that the task needs is not there, in *bin_dir* if given.
    """
    engine = ENGINES.get(name)
    if engine is None:
        raise MaintenanceError(
            "open the backup repository",
            where=repository.directory,
            expected=f"backups made by {' or '.join(ENGINES)}",
            observed=f"one made by {name}",
            advice="Use the version of this collection that made it.",
        )
    programs = engine.programs[task]
    return engine(repository, find_bin_dir(bin_dir, version, programs) if programs else bin_dir, params)


class Engines:
    """The engines that made the backups of a repository, each opened once for *task*."""

    def __init__(self, repository: Repository, task: str, params: t.Mapping[str, t.Any]) -> None:
        self.repository = repository
        self.task = task
        self.params = params
        self._opened: dict[tuple[str, int], Engine] = {}

    def of(self, backup: Backup) -> Engine:
        """The one that made *backup*, with the programs of its version; raises MissingToolError where they are gone."""
        name, version = str(backup.metadata["engine"]), int(backup.metadata["server_version"])
        if (name, version) not in self._opened:
            bin_dir = self.params["bin_dir"]
            self._opened[name, version] = open_engine(
                name, self.repository, task=self.task, version=version, params=self.params, bin_dir=bin_dir
            )
        return self._opened[name, version]
