# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where a configuration, its state and its traces are, and how logrotate is run on them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import re
import stat
import subprocess
import tempfile
import typing as t

from ..errors import MaintenanceError
from ..files import write_atomically
from ..processes import run
from . import state as state_file
from .config import Policy, marker_paths
from .survey import LogFile

_ANY_STATUS = range(256)


class Place(t.NamedTuple):
    """The files of one configuration."""

    directory: str
    config: str
    state: str
    markers: str
    memory: str


def place_of(config_dir: str, state_path: str) -> Place:
    """The files below *config_dir*; the state is in *state_path* where that is given."""
    return Place(
        config_dir,
        os.path.join(config_dir, "logrotate.conf"),
        state_path or os.path.join(config_dir, "state"),
        os.path.join(config_dir, "postrotate"),
        os.path.join(config_dir, "memory.json"),
    )


def prepare(place: Place) -> None:
    """Make the private directories of *place*; refuse those in which somebody else could put a script for us."""
    for directory in (place.directory, place.markers):
        os.makedirs(directory, mode=0o700, exist_ok=True)
        status = os.lstat(directory)
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise MaintenanceError(
                "keep logrotate's configuration",
                where=directory,
                expected="a directory of the user who rotates, to which nobody else may write",
                observed=f"mode {stat.filemode(status.st_mode)}, owner {status.st_uid}",
                advice="Correct its owner and mode, or choose another config_dir.",
            )


def read_text(path: str) -> str | None:
    """The text of the file *path*, any bytes of it kept; None when there is none."""
    try:
        with pathlib.Path(path).open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
            return stream.read()
    except FileNotFoundError:
        return None


def write_text(path: str, text: str) -> None:
    """Replace *path* by *text*, whole or not at all, readable for nobody else."""
    write_atomically(path, text.encode("utf-8", "surrogateescape"), 0o600)


def dry_run(program: str, config: str, dates: t.Mapping[str, float], place: Place) -> str:
    """What ``logrotate -d`` says of the text *config* and a state of *dates*; it changes nothing."""
    with tempfile.TemporaryDirectory(prefix="wellkept-logrotate-") as directory:
        shadow = place_of(directory, "")
        write_text(shadow.config, config)
        write_text(shadow.state, state_file.render(dates))
        done = run([program, "-d", "-s", shadow.state, shadow.config], accept=_ANY_STATUS, timeout=600)
    return done.stderr.replace(shadow.config, place.config).replace(shadow.state, place.state)


def rotate(program: str, place: Place, timeout: float) -> subprocess.CompletedProcess[str]:
    """Run logrotate on *place*. Its exit status is returned, not judged."""
    for name in os.listdir(place.markers):
        os.unlink(os.path.join(place.markers, name))
    return run([program, "-s", place.state, place.config], accept=_ANY_STATUS, timeout=timeout)


def traces_of(place: Place, policy: Policy) -> tuple[list[str], str]:
    """The exit statuses that the postrotate script of *policy* left behind, and the end of what it said."""
    statuses, said = (read_text(path) or "" for path in marker_paths(place.markers, policy.name))
    return statuses.split(), re.sub(r"\s+", " ", said)[-300:].strip()


def recovered_dates(
    kept: t.Mapping[str, float], remembered: t.Mapping[str, float], files: t.Iterable[LogFile]
) -> dict[str, float]:
    """The dates of last rotations after the state file was damaged: *kept* in it, else *remembered* from our last run,
    else the time at which the newest rotated file got its name."""
    dates = dict(kept)
    for file in files:
        if file.path not in dates and file.path in remembered:
            dates[file.path] = remembered[file.path]
        elif file.path not in dates and file.archives:
            dates[file.path] = file.archives[0].ctime
    return dates


def set_back(place: Place, paths: t.Sequence[str], before: t.Mapping[str, float]) -> None:
    """Give *paths* their dates from *before* again, so that a rotation that failed is due at the next run."""
    with contextlib.suppress(FileNotFoundError), pathlib.Path(place.state).open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)  # logrotate's own lock.
        dates = dict(state_file.parse(read_text(place.state) or "").dates)
        for path in paths:
            if path in before:
                dates[path] = before[path]
            else:
                dates.pop(path, None)
        write_text(place.state, state_file.render(dates))
