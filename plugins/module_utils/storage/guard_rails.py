# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which directories are never cleaned: those whose loss is a disaster, however they got into a rule."""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import re
import typing as t

from ..errors import MaintenanceError
from .safe_tree import Directory, LinkInPathError, opened_way

# Refused with all that is below them.
_SYSTEM_TREES = ("bin", "boot", "dev", "etc", "proc", "run", "sbin", "sys", "usr")
_SYSTEM_TREES_IN_VAR = (
    "lib/apt",
    "lib/containerd",
    "lib/docker",
    "lib/dpkg",
    "lib/mysql",
    "lib/postgresql",
    "lib/systemd",
)
# Refused themselves: single directories in them belong to applications.
_SHARED_IN_VAR = ("backups", "cache", "lib", "local", "lock", "log", "mail", "opt", "run", "spool", "www")
_PRIVATE_NAMES = (".git", ".gnupg", ".ssh")

# What holds all these names is somebody's data; nothing in it is garbage.
_MARKS = (
    ("a PostgreSQL data directory", ("PG_VERSION",)),
    ("a base backup of PostgreSQL", ("backup_manifest",)),
    ("a base backup of PostgreSQL", ("backup_label",)),
    ("a MariaDB or MySQL data directory", ("ibdata1",)),
    ("a pgBackRest repository", ("backup.info",)),
    ("a pgBackRest repository", ("archive.info",)),
    ("a restic repository", ("config", "data", "index", "keys", "locks", "snapshots")),
    ("a Barman server directory", ("identity.json", "wals")),
    ("a git repository", ("HEAD", "objects", "refs")),
)
_WORK_TREE = ("the root of a git work tree", (".git",))
# Names that the activity backup gives: complete, being written, being removed.
_BACKUP = re.compile(r"(\.partial-|\.expired-)?\d{8}T\d{6}Z-(full|incr)-[0-9a-f]{4}")
_LOOKED_AT = 200
_ADVICE = "Name a directory that holds nothing but what may go, by its real path."


def home_directories() -> list[str]:
    """The home directories of all users that this host knows."""
    return sorted({account.pw_dir.rstrip("/") for account in pwd.getpwall() if account.pw_dir.strip("/")})


def reason_against_path(path: str, homes: t.Iterable[str], state_dir: str) -> str:
    """Why the directory *path* must not be cleaned, as far as its name tells; empty when it may."""
    names = [name for name in path.split("/") if name not in ("", ".")]
    if not path.startswith("/"):
        return "it is not an absolute path"
    if ".." in names or "\0" in path:
        return "it contains '..' or a null character"
    if not names:
        return "it is the root of the file system"
    plain = "/" + "/".join(names)
    return (
        _reason_of_system(names)
        or _reason_of_homes(plain, names, homes)
        or _reason_of_state(plain, os.path.realpath(state_dir))
        or ("" if len(names) > 1 else "it is not at least two levels below the root")
    )


def _reason_of_system(names: list[str]) -> str:
    if names[0] in _SYSTEM_TREES or names[0].startswith("lib"):
        return f"it belongs to the system directory /{names[0]}"
    below_var = "/".join(names[1:])
    if names[0] == "var":
        if below_var in ("", *_SHARED_IN_VAR):
            return "it is a system directory that many share"
        for tree in _SYSTEM_TREES_IN_VAR:
            if below_var == tree or below_var.startswith(f"{tree}/"):
                return f"it belongs to the system directory /var/{tree}"
    return ""


def _reason_of_homes(plain: str, names: list[str], homes: t.Iterable[str]) -> str:
    if names == ["root"] or (names[0] == "home" and len(names) <= 2):
        return "it is a home directory, or holds them"
    for home in homes:
        if plain == home:
            return "it is a home directory"
        if home.startswith(f"{plain}/"):
            return f"it holds the home directory {home}"
    private = next((name for name in names if name in _PRIVATE_NAMES or _BACKUP.fullmatch(name)), "")
    return f"it is within {private}" if private else ""


def _reason_of_state(plain: str, state_dir: str) -> str:
    if plain == state_dir or plain.startswith(f"{state_dir}/"):
        return f"it belongs to the state directory of maintenance, {state_dir}"
    if state_dir.startswith(f"{plain}/"):
        return f"it holds the state directory of maintenance, {state_dir}"
    return ""


def _holds(descriptor: int, names: t.Iterable[str]) -> bool:
    try:
        for name in names:
            os.stat(name, dir_fd=descriptor, follow_symlinks=False)
    except OSError:
        return False
    return True


def _reason_of_marks(descriptor: int, marks: t.Iterable[tuple[str, tuple[str, ...]]]) -> str:
    for what, names in marks:
        if _holds(descriptor, names):
            return f"looks like {what}"
    return "looks like a Borg repository" if _is_borg(descriptor) else ""


def _is_borg(descriptor: int) -> bool:
    """Its names (README, config, data) are those of many an application: what its README says tells them apart."""
    if not _holds(descriptor, ("README", "config", "data")):
        return False
    try:
        readme = os.open("README", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=descriptor)
        try:
            return b"Borg Backup repository" in os.read(readme, 200)
        finally:
            os.close(readme)
    except OSError:
        return False


def reason_against_content(directory: Directory) -> str:
    """Why *directory*, met on the way down, must be left alone for what is in it; empty when it need not."""
    if _BACKUP.fullmatch(directory.name):
        return "looks like a backup of this collection"
    return _reason_of_marks(directory.descriptor, (*_MARKS, _WORK_TREE))


@contextlib.contextmanager
def opened_for_cleaning(path: str, state_dir: str, homes: t.Iterable[str] | None = None) -> t.Iterator[tuple[int, int]]:
    """Descriptors of *path*'s parent and of *path* itself, which are safe to clean while the block runs.

    Raises MaintenanceError that says why when the guard rails refuse it, and OSError when it cannot be opened. What was
    examined is what is held: exchanging a directory afterwards changes nothing.
    """
    reason = reason_against_path(path, home_directories() if homes is None else homes, state_dir)
    if reason:
        raise _refused(path, reason)
    try:
        with opened_way(path) as way:
            for descriptor in way[:-1]:
                reason = reason or _reason_of_marks(descriptor, _MARKS)
            if reason:
                raise _refused(path, f"a directory above it {reason}")
            reason = _reason_of_marks(way[-1], (*_MARKS, _WORK_TREE))
            if not reason and _holds_backups(way[-1]):
                reason = "looks like a backup repository of this collection"
            if reason:
                raise _refused(path, f"it {reason}")
            yield way[-2], way[-1]
    except LinkInPathError as error:
        target = os.readlink(error.component) if os.path.islink(error.component) else "elsewhere"
        raise _refused(path, f"{error.component} is a symbolic link to {target}") from None


def _holds_backups(descriptor: int) -> bool:
    """Whether names in *descriptor*, or one level below, are those of backups that the activity backup makes."""
    with os.scandir(descriptor) as listing:
        entries = list(itertools.islice(listing, _LOOKED_AT))
    if any(_BACKUP.fullmatch(entry.name) for entry in entries):
        return True
    for entry in entries:
        with contextlib.suppress(OSError):
            below = os.open(entry.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=descriptor)
            try:
                with os.scandir(below) as listing:
                    if any(_BACKUP.fullmatch(name.name) for name in itertools.islice(listing, _LOOKED_AT)):
                        return True
            finally:
                os.close(below)
    return False


def _refused(path: str, reason: str) -> MaintenanceError:
    return MaintenanceError(
        "refuse to clean a directory",
        where=path,
        expected="a directory of an application's own, at least two levels deep, with no link in its path",
        observed=reason,
        advice=_ADVICE,
    )
