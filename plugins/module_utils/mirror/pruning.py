# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A mirror that follows its sources: what expired here goes there too, within limits; many manifests become one."""

from __future__ import annotations

import contextlib
import os
import time
import typing as t

from ..errors import MaintenanceError
from .decision import Removal, decide_removal
from .destination import DIRECTORY, parents
from .manifests import MANIFESTS, merge
from .names import OWN
from .sources import backup_of, moment_of

if t.TYPE_CHECKING:
    from .flow import Mirroring

_MOST_MANIFESTS = 60
_AT_A_TIME = 2000


def decide(run: Mirroring) -> Removal:
    """What may go there, by what is here."""
    here: t.Dict[str, t.Set[str]] = {}
    for source in run.found:
        for unit in source.units:
            if unit.backup and unit.repository:
                here.setdefault(f"{source.source.name}/{unit.repository.cluster}", set()).add(unit.backup.label)
        for cluster, chain in source.newest_proven.items():
            run.records.proven[f"{source.source.name}/{cluster}"] = list(chain)
    decision = run.outcome.decision
    changed = [f"{len(decision.changed)} files that never change have changed here"] if decision.changed else []
    return decide_removal(
        decision.gone,
        run.records.files,
        run.there,
        backups_here=here,
        proven=run.records.proven,
        most_percent=run.settings.remove_at_most,
        obstacles=changed,
    )


def forget_expired(run: Mirroring, wanted: t.Container[str], keep_within: float) -> None:
    """Forget what the far side has removed by itself, as it may: old, not here any more, and not there."""
    for name in [name for name in run.records.files if name not in wanted and name not in run.there]:
        label = backup_of(name)[1]
        if not name.startswith(OWN + "/") and (not label or time.time() - moment_of(label) > keep_within):
            del run.records.files[name]


def remove(run: Mirroring) -> None:
    """Remove what was decided to go, when the newest backup there is sound."""
    removal = run.outcome.removal
    if not removal.names:
        return
    unsound = _unsound_newest(run)
    if unsound:
        run.outcome.removal = removal._replace(names=[], refused=f"the newest backup there is not sound: {unsound}")
        return
    run.write_manifest(set(), removal.names)
    for start in range(0, len(removal.names), _AT_A_TIME):
        batch = removal.names[start : start + _AT_A_TIME]
        run.connection.remove(batch)
        for name in batch:
            run.records.files.pop(name, None)
            run.there.pop(name, None)
            run.outcome.removed.append(name)
    with contextlib.suppress(OSError, MaintenanceError):
        run.connection.remove(_emptied(run, removal.names))


def _unsound_newest(run: Mirroring) -> str:
    """What is wrong there with the newest backup, or with what it builds on."""
    newest = next((unit for source in run.found for unit in source.units if unit.backup), None)
    if newest is None or newest.backup is None:
        return ""
    chain = [f"{os.path.dirname(newest.name)}/{label}" for label in newest.backup.chain]
    return next((n for n in run.outcome.problems if n in chain or n.startswith(tuple(c + "/" for c in chain))), "")


def _emptied(run: Mirroring, removed: t.Sequence[str]) -> t.List[str]:
    """The directories in which nothing is left, the deepest first."""
    tops = tuple({"/".join(name.split("/")[:3]) for name in removed})
    used: t.Set[str] = set()
    for name, entry in run.there.items():
        if entry.kind != DIRECTORY and os.path.dirname(name) not in used:
            used.update(parents(name))
    empty = [n for n, e in run.there.items() if e.kind == DIRECTORY and n not in used and n.startswith(tops)]
    return sorted(empty, key=lambda name: -name.count("/"))


def compact(run: Mirroring) -> None:
    """Replace many manifests by one."""
    manifests = [n for n in run.records.files if n.startswith(MANIFESTS) and n in run.there]
    if len(manifests) <= _MOST_MANIFESTS:
        return
    told = merge(run.read_all(manifests))
    run.list_anew()
    run.directories.update(told.directories)
    run.write_manifest(set())
    for name in manifests:
        del run.records.files[name]
    run.connection.remove(manifests)
