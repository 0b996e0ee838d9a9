# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The engines that there are, by their names."""

from __future__ import annotations

from ..errors import MaintenanceError
from ..postgresql import find_bin_dir
from .core import CoreEngine
from .engine import Engine
from .repository import Repository

ENGINES: dict[str, type[Engine]] = {CoreEngine.name: CoreEngine}


def open_engine(name: str, repository: Repository, *, task: str, version: int, bin_dir: str = "") -> Engine:
    """The engine *name* for *task* on backups of a server of *version* (as in 180004).

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
    return engine(repository, find_bin_dir(bin_dir, version, engine.programs[task]))
