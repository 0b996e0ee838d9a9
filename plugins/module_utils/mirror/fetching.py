# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A repository rebuilt from a mirror, with nothing at hand but the mirror: its manifests say what each file must be."""

from __future__ import annotations

import os
import shutil
import tempfile
import typing as t

from ..backup.repository import LABEL, METADATA, parse_metadata
from ..errors import MaintenanceError
from ..files import sha256_of, sync_directory
from .destination import FILE, Connection, Entry, parents
from .manifests import Told, is_manifest, merge
from .memory import Record
from .names import INCOMING, from_mirror
from .report import few
from .sources import backup_of


class Fetched(t.NamedTuple):
    """What was fetched, or would be."""

    files: int
    bytes: int
    labels: t.List[str]
    problems: t.List[str]


def read_manifests(connection: Connection, there: t.Mapping[str, Entry], scratch: str) -> Told:
    """What the mirror says that it holds; raises MaintenanceError when it says nothing."""
    names = [name for name in there if is_manifest(name)]
    contents = {}
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        targets = {name: os.path.join(directory, str(number)) for number, name in enumerate(names)}
        if names:
            connection.fetch(targets, {name: there[name].size for name in names})
        for name, path in targets.items():
            with open(path, "rb") as stream:
                contents[name] = stream.read()
    told = merge(contents)
    if not told.files:
        raise MaintenanceError(
            "read the manifests of the mirror",
            expected="at least one that can be believed",
            observed=f"{len(names)} manifests, {len(told.flaws)} of them not as they were written",
            advice="Correct the path of the destination: it is the directory that holds .wellkept-mirror.",
        )
    return told


def choose(
    told: Told, there: t.Mapping[str, Entry], sources: t.Sequence[str], label: str, chain: t.Sequence[str]
) -> t.Dict[str, Record]:
    """The files to fetch: of these *sources* (all when empty), and of backups those in *chain* alone when a *label* is
    given. A backup whose description is not there is none."""
    chosen = {}
    for name, record in told.files.items():
        cluster, backup = backup_of(name)
        if sources and name.split("/")[0] not in sources:
            continue
        if backup and label and backup not in chain:
            continue
        if backup and f"{name.split('/')[0]}/{cluster}/{backup}/{METADATA}" not in there:
            continue
        chosen[name] = record
    return chosen


def chain_of(
    connection: Connection, told: Told, there: t.Mapping[str, Entry], sources: t.Sequence[str], label: str
) -> t.Tuple[str, t.List[str]]:
    """The label that *label* (or ``newest``) means, and all that it builds on, as its description there says."""
    found = {}
    for name in told.files:
        _cluster, backup = backup_of(name)
        described = backup and name.endswith(f"/{backup}/{METADATA}") and name in there
        if described and (not sources or name.split("/")[0] in sources):
            found[backup] = name
    wanted = max(found, default="") if label == "newest" else label
    if wanted not in found:
        raise MaintenanceError(
            f"find the backup {label} in the mirror",
            expected="one of " + (", ".join(sorted(found)) or "at least one"),
            observed="it is not there, or not complete",
            advice="Choose another one.",
        )
    try:
        chain = list(parse_metadata(connection.read(found[wanted]))["chain"])
    except (ValueError, KeyError) as error:
        raise MaintenanceError(
            f"read the description of {wanted} in the mirror",
            where=found[wanted],
            expected="the file as it was sent",
            observed=str(error),
            advice="Choose another backup.",
        ) from None
    return wanted, chain


def missing(chosen: t.Mapping[str, Record], there: t.Mapping[str, Entry]) -> t.List[str]:
    """What is not there as it was sent, as far as names and sizes tell."""
    return [name for name, record in sorted(chosen.items()) if there.get(name) != Entry(FILE, record.size)]


def fetch(
    connection: Connection, chosen: t.Mapping[str, Record], directories: t.Iterable[str], target: str, *, partly: bool
) -> t.List[str]:
    """Fetch *chosen* to the directory *target*, which appears when it is complete; returns what is wrong, in words.

    Where something has not its hash, nothing appears; or, if it may be fetched *partly*, all but the backup that it
    belongs to.
    """
    parent = os.path.dirname(os.path.abspath(target))
    incoming = tempfile.mkdtemp(prefix=INCOMING, dir=parent)
    try:
        paths = {name: os.path.join(incoming, from_mirror(name)) for name in chosen}
        tops = {"/".join(name.split("/")[:depth]) for name in chosen for depth in (1, 3)}
        for name in directories:
            parts = name.split("/")
            # That of a backup with the backup, any other with its source.
            depth = 3 if len(parts) > 2 and LABEL.fullmatch(parts[2]) else 1
            if "/".join(parts[:depth]) in tops:
                os.makedirs(os.path.join(incoming, from_mirror(name)), mode=0o700, exist_ok=True)
        for name in chosen:
            for above in parents(name):
                os.makedirs(os.path.join(incoming, from_mirror(above)), mode=0o700, exist_ok=True)
        connection.fetch(paths, {name: record.size for name, record in chosen.items()})
        wrong = [name for name, path in sorted(paths.items()) if sha256_of(path) != chosen[name].sha256]
        problems = [f"{name} has another content than was sent" for name in wrong]
        if wrong and not partly:
            return problems
        for name in wrong:
            _leave_out(incoming, name)
        if os.path.isdir(target):
            os.rmdir(target)
        os.rename(incoming, target)
        sync_directory(parent)
        return problems
    finally:
        shutil.rmtree(incoming, ignore_errors=True)


def _leave_out(incoming: str, name: str) -> None:
    """Take away the file *name*, and the whole backup that it is a part of."""
    path = os.path.join(incoming, from_mirror(name))
    if backup_of(name)[1]:
        shutil.rmtree(os.path.join(incoming, from_mirror("/".join(name.split("/")[:3]))), ignore_errors=True)
    elif os.path.exists(path):
        os.unlink(path)


def require_empty(target: str) -> None:
    """Raises MaintenanceError unless *target* is missing, in a directory that is there, or empty."""
    parent = os.path.dirname(os.path.abspath(target))
    observed = ""
    if not os.path.isdir(parent):
        observed = f"{parent} is not there"
    elif os.path.lexists(target) and (os.path.islink(target) or not os.path.isdir(target)):
        observed = "something else than a directory"
    elif os.path.isdir(target) and os.listdir(target):
        observed = f"it holds {few(sorted(os.listdir(target))[:3])}"
    if observed:
        raise MaintenanceError(
            "fetch backups from a mirror",
            where=target,
            expected="a directory that is empty, or that can be made",
            observed=observed,
            advice="Choose another directory; nothing is ever overwritten by this.",
        )
