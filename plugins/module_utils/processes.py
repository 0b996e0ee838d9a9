# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run other programs: by a list of arguments, with a time limit, and with their words kept for the error."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import typing as t

from .errors import MaintenanceError, MissingToolError

# Where system tools live that an ordinary user's PATH may lack (logrotate, for one).
SYSTEM_DIRECTORIES = "/usr/local/sbin:/usr/sbin:/sbin"


def find_program(name: str, directory: str = "") -> str | None:
    """Path of the program *name*: in *directory* if given, else in PATH and the system directories; None if nowhere."""
    search = directory or os.environ.get("PATH", os.defpath) + ":" + SYSTEM_DIRECTORIES
    return shutil.which(name, path=search)


def require_program(name: str, *, what: str, package: str = "") -> str:
    """Path of the program *name*, without which we cannot do *what*; raises MissingToolError."""
    found = find_program(name)
    if found is None:
        raise MissingToolError(
            what,
            expected=f"the program {name}",
            observed="it is not installed",
            advice=f"apt-get install {package or name}",
        )
    return found


def run(
    arguments: t.Sequence[str],
    *,
    timeout: float | None = None,
    environment: t.Mapping[str, str] | None = None,
    accept: t.Container[int] = (0,),
    what: str = "",
    **popen_options: t.Any,
) -> subprocess.CompletedProcess[str]:
    """Run *arguments* to the end and return what it wrote (``stdout``, ``stderr`` as text) and its ``returncode``.

    *environment* is added to ours (with ``LC_ALL=C``, so that messages can be read). Raises MaintenanceError, with the
    last lines of what the program said, when it cannot be started, takes longer than *timeout* seconds, or ends with a
    status that is not in *accept*. Arguments must hold no secret: they can be seen by everybody on the host.
    """
    name = what or f"run {os.path.basename(arguments[0])}"
    try:
        done = subprocess.run(
            list(arguments),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            env={**os.environ, "LC_ALL": "C", **(environment or {})},
            check=False,
            **popen_options,
        )
    except subprocess.TimeoutExpired:
        raise MaintenanceError(
            name,
            expected=f"an end within {timeout:g} s",
            observed="still running, now stopped",
            advice="See why it hangs, or allow more time.",
        ) from None
    except OSError as error:
        raise MaintenanceError(
            name,
            where=arguments[0],
            expected="a program that can be started",
            observed=error.strerror or str(error),
            advice="Install it, or correct its path.",
        ) from None
    if done.returncode not in accept:
        raise MaintenanceError(
            name,
            expected=f"exit status {' or '.join(str(s) for s in accept) if isinstance(accept, (tuple, list)) else '0'}",
            observed=f"exit status {done.returncode}: {last_words(done.stderr or done.stdout)}",
            advice="The program's own message says what it lacked.",
        )
    return done


def last_words(output: str, lines: int = 5) -> str:
    """The last *lines* non-empty lines of *output*, joined by " | "."""
    said = [line.strip() for line in output.splitlines() if line.strip()]
    return " | ".join(said[-lines:]) or "no message"


def as_user(user: str, reach: str) -> list[str]:
    """The arguments to put before a command so that it runs as *user* instead of root; empty when we are not root.

    PostgreSQL's server refuses to run as root. Where *user* could not walk to the directory *reach* (a checkout below
    /root, say), the command keeps one capability, CAP_DAC_READ_SEARCH, and no other right of root.
    """
    if os.geteuid() != 0 or user == "root":
        return []
    account = pwd.getpwnam(user)
    prefix = ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
    if not _can_walk_to(reach, account.pw_uid, account.pw_gid):
        capability = _capability_to_walk()
        # Without the securebit access(2), which PostgreSQL's programs ask, would not count the capability.
        prefix += [f"--inh-caps=+{capability}", f"--ambient-caps=+{capability}", "--securebits=+no_setuid_fixup"]
    return [*prefix, "--"]


def _capability_to_walk() -> str:
    """CAP_DAC_READ_SEARCH; in a container whose root lacks it (Docker's default), CAP_DAC_OVERRIDE, which it has."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as stream:
        permitted = next(int(line.split()[1], 16) for line in stream if line.startswith("CapPrm:"))
    return "dac_override" if permitted >> 1 & 1 and not permitted >> 2 & 1 else "dac_read_search"


def _can_walk_to(directory: str, uid: int, gid: int) -> bool:
    path = os.path.realpath(directory)
    while True:
        status = os.stat(path)
        shift = 6 if status.st_uid == uid else 3 if status.st_gid == gid else 0
        if not status.st_mode >> shift & 1:
            return False
        if path == "/":
            return True
        path = os.path.dirname(path)
