# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The program pgbackrest as we run it: as the server's user, its errors told so that an operator can act on them."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import re
import shlex
import signal
import subprocess
import typing as t

from ...errors import MaintenanceError
from ...processes import as_user, last_words, require_program, run
from ..programs import guarded

PROGRAM = "pgbackrest"
_CHUNK = 1 << 20
_FIRST_LINES = 12

# These work on the repository's own host alone; where that is another one, they are run there.
_ON_THE_REPOSITORY = frozenset(("backup", "expire", "stanza-create", "stanza-upgrade", "verify"))

_ERROR = re.compile(r"ERROR: \[(\d{3})\]: (.*)", re.DOTALL)
# What pgBackRest says when it decrypts by another passphrase than was encrypted with: noise instead of text.
_WRONG_KEY = re.compile(
    r"key/value found outside of section|cipher header (?:invalid|missing)|unable to flush|\[CryptoError\]|\[095\]"
    r"|No usable (?:backup|archive)\.info|unable to determine cipher passphrase"
)
_DISK_FULL = re.compile(r"No space left on device|Disk quota exceeded|File too large")
# ssh did not get through; where it was refused and where the other host sent it away look the same to pgBackRest.
_NO_WAY = re.compile(r"terminated unexpectedly \[255\]|\bssh: |Permission denied \(|Host key verification failed")
_ADVICE = {
    28: "The stanza is another cluster's: correct pgbackrest_stanza, or the login options. After an upgrade of "
    "PostgreSQL by pg_upgrade, set pgbackrest_stanza_upgrade: true once.",
    31: "Correct the configuration of pgBackRest.",
    32: "Correct the configuration of pgBackRest.",
    37: "Add what it lacks to the configuration of pgBackRest.",
    41: "Let the server's user read it.",
    50: "Another pgBackRest works on this stanza: wait until it has ended, then run this again.",
    51: "The stanza is another cluster's: correct pgbackrest_stanza, or the login options.",
    55: "Correct the path, or restore the file. A stanza is created by the next run of the activity backup.",
    56: "Let the server's user log in by the socket, as login_user, to login_db.",
    58: "The stanza is another cluster's: correct pgbackrest_stanza, or the login options.",
    82: "WAL does not arrive in the repository: see the server's log for what the archive_command says.",
    87: "Set archive_mode = on, and restart PostgreSQL.",
    103: "Create the stanza by the activity backup, or see whether the repository is there and can be read.",
}


class Access(t.NamedTuple):
    """How the repository of a cluster is reached, and as whom."""

    config: str
    stanza: str
    user: str
    # The passphrase of the repository; empty where nothing is encrypted, or the configuration has it.
    key: str = ""
    # Where the repository is on another host: it, the user there, and the configuration there.
    host: str = ""
    host_user: str = "pgbackrest"
    host_config: str = ""


class Listed(t.NamedTuple):
    """A file of the repository, and what tells whether it was changed, as far as it is listed."""

    bytes: int
    time: int
    st_dev: int = 0
    st_ino: int = 0

    @property
    def st_size(self) -> int:
        return self.bytes

    @property
    def st_mtime_ns(self) -> int:
        return self.time * 10**9

    @property
    def st_ctime_ns(self) -> int:
        return self.time * 10**9

    @property
    def st_ctime(self) -> float:
        return float(self.time)


class Tool:
    """pgBackRest for the stanza of *access*; raises MissingToolError where it is not installed."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self.program = require_program(PROGRAM, what="find pgBackRest")

    @functools.cached_property
    def version(self) -> tuple[int, int]:
        """``(2, 45)``; that of this host, also where the repository is on another one."""
        words = run([self.program, "version"], timeout=60).stdout
        found = re.search(r"(\d+)\.(\d+)", words)
        return (int(found.group(1)), int(found.group(2))) if found else (0, 0)

    @property
    def environment(self) -> dict[str, str]:
        """What the program is told in secret: it wins over the configuration.

        Without the type it would ignore the key, and have that of the repository's host sent, where there is one.
        """
        if not self.access.key:
            return {}
        return {"PGBACKREST_REPO1_CIPHER_TYPE": "aes-256-cbc", "PGBACKREST_REPO1_CIPHER_PASS": self.access.key}

    def command(self, command: str, *arguments: str, reach: str = "/") -> list[str]:
        """The words that run *command*, as the server's user, who must be able to walk to *reach*."""
        access = self.access
        if access.host and command in _ON_THE_REPOSITORY:
            config = [f"--config={access.host_config}"] if access.host_config else []
            there = [PROGRAM, *config, f"--stanza={access.stanza}", command, *arguments]
            words = ["ssh", "-o", "BatchMode=yes", f"{access.host_user}@{access.host}", "--", shlex.join(there)]
        else:
            words = [self.program, f"--config={access.config}", f"--stanza={access.stanza}", command, *arguments]
        prefix = as_user(access.user, reach)
        # setpriv forgets what setpriv was told before it changed the user: so both in one.
        return [*prefix[:-1], "--pdeathsig=KILL", "--", *words] if prefix else guarded(words)

    def run(
        self,
        command: str,
        *arguments: str,
        what: str,
        timeout: float | None = None,
        accept: t.Container[int] = (0,),
        reach: str = "/",
        environment: t.Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run *command* to its end; raises MaintenanceError for its errors."""
        done = run(
            self.command(command, *arguments, reach=reach),
            timeout=timeout,
            environment={**self.environment, **(environment or {})},
            accept=range(-64, 256),
            what=what,
            cwd="/",
        )
        if done.returncode not in accept:
            raise self.failed(what, done.returncode, done.stderr + done.stdout)
        return done

    def failed(self, what: str, status: int, said: str) -> MaintenanceError:
        """The error for a pgbackrest that ended with *status*."""
        where = f"stanza {self.access.stanza} by {self.access.config}"
        # The release 2.45 crashes when what a repository host sends cannot be decrypted.
        crashed = status == -signal.SIGSEGV and bool(self.access.host and self.access.key)
        if crashed or _WRONG_KEY.search(said):
            return wrong_key(what, where)
        found = _ERROR.search(said)
        words = _printable(found.group(0) if found else said)
        advice = _ADVICE.get(status, "Its own message says what it lacked.")
        if _DISK_FULL.search(said):
            advice = "Free space where the repository is, or give it more; earlier backups are untouched."
        elif _NO_WAY.search(said):
            advice = (
                "The repository is on another host, and its host does not answer or does not let us in: start it, or "
                "see what its sshd says. Until then WAL stays here, and fills the disk."
            )
        return MaintenanceError(
            what, where=where, expected="exit status 0", observed=f"exit status {status}: {words}", advice=advice
        )

    def info(self) -> dict[str, t.Any]:
        """What ``pgbackrest info`` says of the stanza, which may not be there yet, or hold nothing."""
        said = self.run("info", "--output=json", what="ask pgBackRest for its backups").stdout
        try:
            found: dict[str, t.Any] = json.loads(said)[0]
        except (ValueError, IndexError):
            raise self.failed("ask pgBackRest for its backups", 0, said or "it said nothing") from None
        message = "; ".join(str(repo["status"]["message"]) for repo in found.get("repo", []))
        if _WRONG_KEY.search(message):
            raise wrong_key("ask pgBackRest for its backups", f"stanza {self.access.stanza} by {self.access.config}")
        if found["status"]["code"] == 99:
            raise self.failed("ask pgBackRest for its backups", 99, message)
        return found

    def files(self, path: str) -> dict[str, Listed]:
        """The files below *path* of the repository (``archive/main``), by their paths relative to it."""
        said = self.run("repo-ls", "--output=json", "--recurse", path, what=f"list {path} of the repository").stdout
        found = json.loads(said or "{}")
        return {name: Listed(e["size"], e["time"]) for name, e in found.items() if e["type"] == "file"}

    def read(self, path: str, target: t.BinaryIO) -> None:
        """Write the file *path* of the repository, decrypted, to *target*."""
        self._get(path, (), target.write)

    def digest(self, path: str) -> str:
        """The SHA-256 of the file *path* of the repository, as it lies there."""
        found = hashlib.sha256()
        self._get(path, ("--raw",), found.update)
        return found.hexdigest()

    def _get(self, path: str, arguments: t.Sequence[str], take: t.Callable[[bytes], object]) -> None:
        with subprocess.Popen(
            self.command("repo-get", *arguments, path),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C", **self.environment},
            cwd="/",
        ) as process:
            output = t.cast(io.BufferedReader, process.stdout)
            for block in iter(lambda: output.read1(_CHUNK), b""):
                take(block)
            said = t.cast(io.BufferedReader, process.stderr).read().decode(errors="replace")
        if process.returncode != 0:
            raise self.failed(f"read {path} of the repository", process.returncode, said)


def wrong_key(what: str, where: str) -> MaintenanceError:
    return MaintenanceError(
        what,
        where=where,
        expected="a repository that the stored key opens",
        observed="wrong key: what it decrypts is noise",
        advice="Correct key_file: without the right key no backup of this repository can be restored. Or the files "
        "that describe the repository are damaged: see whether the key is the one that it was created with.",
    )


def _printable(said: str) -> str:
    lines = [line.strip() for line in said.splitlines()]
    lines = [line for line in lines if line and " INFO: " not in line][:_FIRST_LINES]
    return "".join(character if character.isprintable() else "?" for character in last_words("\n".join(lines), 4))
