# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan of a restore into place, as checks that an operator reads before anything is written."""

from __future__ import annotations

import os

from ..backup.wal.positions import format_lsn
from ..errors import MaintenanceError
from ..quantities import human_bytes, human_seconds
from ..result import Part
from . import in_place, live_cluster, replay
from .in_place import Journal
from .in_place_flow import Wish
from .scratch_directory import same_directory

# Of a segment, where no restore test has measured better.
_SECONDS_FOR_A_SEGMENT = 0.5
_BYTES_A_SECOND = 100e6


def show(wish: Wish, found: Journal | None, part: Part) -> None:
    """Record the plan; what stands in the way is a failed check of it."""
    aim, wal = wish.aim, wish.aim.wal
    part.require(
        "backup",
        True,
        expected="one that the target can be reached from",
        observed=f"{aim.backup.label}, finished {aim.backup.metadata['finished']}",
        chain=aim.backup.chain,
    )
    part.require(
        "target",
        True,
        expected="a point that can be reached",
        observed=f"{aim.words}" + (f", committed {aim.newest.time.isoformat()}" if aim.target.kind == "newest" and
                                   aim.newest else ""),
    )  # fmt: skip
    part.require(
        "WAL",
        True,
        expected="without a gap from the backup on",
        observed=f"{len(wal.reach.names)} segments from {wal.backup.metadata['start_lsn']} to "
        f"{format_lsn(wal.reach.end)}, timeline {wal.timeline}"
        + (f"; {wal.reach.missing} is missing, {len(wal.behind_gap)} lie behind it" if wal.behind_gap else ""),
    )
    if aim.backup.lacks:
        part.check(
            "stores in the backup",
            "warned",
            expected="all that the activity backup is to save beside the databases",
            observed="; ".join(f"{name}: {why}" for name, why in aim.backup.lacks.items()),
            advice="An earlier backup may hold it: restore the databases from this one, and the rest from that one.",
        )
    _show_room(wish, found, part)
    part.require("predicted time", True, expected="an estimate", observed=_prediction(wish))
    _show_place(wish, found, part)
    if found:
        part.check(
            "earlier restore",
            "warned",
            expected="none that was interrupted, or that waits to be looked at",
            observed=wish.place.words(found),
            advice="Run it again with the same target and confirm to go on from there.",
        )


def _show_room(wish: Wish, found: Journal | None, part: Part) -> None:
    status = os.statvfs(os.path.dirname(wish.place.data))
    free, needed = status.f_bavail * status.f_frsize, replay.bytes_needed(wish.aim, wish.engine)
    part.require(
        f"room in {os.path.dirname(wish.place.data)}",
        free >= needed or bool(found and found.phase != in_place.LAYING_DOWN),
        expected=f"at least {human_bytes(needed)} free, beside the old data directory, which stays",
        observed=f"{human_bytes(free)} free",
        advice="Free space there (an earlier .before-restore directory?), or name a data_directory elsewhere.",
    )


def _prediction(wish: Wish) -> str:
    proof = next(filter(None, (wish.engine.repository.proof(b) for b in reversed(wish.engine.list()))), None)
    segments = len(wish.aim.wal.reach.names)
    if proof:
        seconds = proof["rto_seconds"] + segments * _SECONDS_FOR_A_SEGMENT
        return f"about {human_seconds(seconds)}, by the restore test of {proof['proven_at']} and {segments} segments"
    seconds = replay.bytes_needed(wish.aim, wish.engine) / _BYTES_A_SECOND + segments * _SECONDS_FOR_A_SEGMENT
    return f"roughly {human_seconds(seconds)}; no restore test has measured it yet"


def _show_place(wish: Wish, found: Journal | None, part: Part) -> None:
    place = wish.place
    done = bool(found and found.phase == in_place.SWAPPED)
    live = live_cluster.ask(wish.params)
    running = in_place.reason_running(place.data)
    if not running and live.data_directory:
        running = f"a server answers at the login options, on {live.data_directory}"
    if not (done and (not live.data_directory or same_directory(live.data_directory, place.data))):
        part.check(
            f"no server on {place.data}",
            "passed" if not running else "failed" if wish.params["confirm"] else "warned",
            expected="the server stopped, and no other at its address",
            observed=running or "none",
            advice="Stop it (systemctl stop postgresql@<version>-<name>), and look that nothing starts it again.",
        )
    if os.path.isdir(place.data):
        identifier = in_place.identifier_of(place.data, wish.bin_dir)
        part.check(
            f"cluster in {place.data}",
            "unknown" if not identifier else "passed" if identifier == wish.aim.wal.identifier else "failed",
            expected=f"the system identifier {wish.aim.wal.identifier} of the backup",
            observed=identifier or "its pg_control cannot be read any more",
            advice="The backup is another cluster's: correct cluster or data_directory. Where the files are damaged, "
            "look twice that this is the directory that you mean.",
        )
        wal = os.path.join(place.data, "pg_wal")
        if os.path.islink(wal):
            part.check(
                "place of pg_wal",
                "warned",
                expected="inside the data directory",
                observed=f"it is a link to {os.readlink(wal)}; the restored one lies inside",
                advice="Move it there by hand afterwards, with the server stopped.",
            )
    _show_start(wish, part)


def _show_start(wish: Wish, part: Part) -> None:
    place = wish.place
    kept = wish.configuration == "kept" and os.path.isdir(place.data)
    name = "postgresql.conf"
    has_own = os.path.exists(os.path.join(place.data, name)) if kept else wish.engine.holds(wish.aim.backup, name)
    part.require(
        "how the server is started",
        bool(wish.start_command) or has_own,
        expected="start_command, or a postgresql.conf in the data directory",
        observed=" ".join(wish.start_command) or (f"pg_ctl, as {wish.user}" if has_own else "neither"),
        advice="Set start_command, on Debian to [systemctl, start, postgresql@<version>-<name>].",
    )
    words = "kept from the old data directory" if kept else "of the backup"
    part.require("configuration to be used", True, expected=wish.configuration, observed=words)


def confirmed(wish: Wish, check_mode: bool, part: Part) -> bool:
    """Whether the operator named the cluster again; a wrong name is an error, none shows the plan only."""
    cluster, given = wish.params["cluster"], wish.params["confirm"]
    if given and given != cluster:
        raise MaintenanceError(
            "confirm the restore",
            expected=f"confirm={cluster}",
            observed=f"confirm={given}",
            advice="Nothing was touched. Name the cluster that you mean.",
        )
    if not given:
        part.check(
            "confirmation",
            "warned",
            expected=f"confirm={cluster}",
            observed="none: this is the plan, and nothing was touched",
            advice=f"Add -e confirm={cluster} to carry it out.",
        )
    elif check_mode:
        place = wish.place
        part.change("data directory", place.data, "the old one", "would be renamed aside")
        part.change("cluster", place.data, "not restored", f"would be restored to {wish.aim.target}")
    return bool(given)
