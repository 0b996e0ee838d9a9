# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A program for the server's host: what it takes to send WAL elsewhere is looked at there, and made.

It is sent there by ``remote``, reads its orders as JSON from the standard input, and answers in JSON.
"""

from __future__ import annotations

import json
import os
import pwd
import socket
import stat
import subprocess
import sys
import tempfile
import typing as t

KEY = "id_ed25519"
_PYTHON = "/usr/bin/python3"


class CannotError(Exception):
    """Told to whoever sent us: what was expected, what is the case, and what to do."""


def main() -> None:
    order = json.load(sys.stdin)
    try:
        answer = carry_out(order)
    except CannotError as error:
        answer = {"expected": error.args[0], "observed": error.args[1], "advice": error.args[2]}
    except OSError as error:
        problem = "%s: %s" % (error.filename, error.strerror)
        answer = {"expected": "the system to allow it", "observed": problem, "advice": "See what stands in the way."}
    json.dump(answer, sys.stdout)


def carry_out(order: dict[str, t.Any]) -> dict[str, t.Any]:
    account = become_owner_of(order["data_directory"])
    top = order["directory"] or os.path.join(account.pw_dir, ".wellkept-wal")
    directory = os.path.join(top, order["identifier"])
    missing = [path for path in (top, directory) if not os.path.lexists(path)]
    keys = [os.path.join(directory, name) for name in (KEY, KEY + ".pub")]
    missing += [path for path in keys if not os.path.lexists(path)]
    paths = {os.path.join(directory, name): text for name, text in order["files"].items()}
    missing += [path for path, text in paths.items() if content_of(path) != text]
    if order["make"]:
        for path in (top, directory):
            make_directory(path)
        make_key(directory, order["comment"])
        for path in missing:
            if path in paths:
                write(path, paths[path])
        missing = []
    return {
        "directory": directory,
        "missing": missing,
        "public_key": content_of(os.path.join(directory, KEY + ".pub")) or "",
        "python": _PYTHON if os.path.exists(_PYTHON) else sys.executable,
        "attempt": attempt(order["attempt"]) if order["attempt"] else "",
    }


def attempt(command: list[str]) -> str:
    """What is wrong with fetching a file that no archive has; empty when it is only not there."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return "" if done.returncode == 1 else done.stderr.strip() or "it ended with %d" % done.returncode


def become_owner_of(data: str) -> pwd.struct_passwd:
    """From here on we do what we do as the server's user."""
    try:
        status = os.stat(os.path.join(data, "global", "pg_control"))
    except OSError as error:
        raise CannotError(
            "the server's data directory %s, and the right to see it" % data,
            "%s, as %s on %s" % (error.strerror, pwd.getpwuid(os.geteuid()).pw_name, socket.gethostname()),
            "Set ssh.user to the server's user, and ssh.host to the server's host.",
        ) from None
    account = pwd.getpwuid(status.st_uid)
    if os.geteuid() not in (0, account.pw_uid):
        raise CannotError(
            "to log in as the server's user %s" % account.pw_name,
            "we are %s" % pwd.getpwuid(os.geteuid()).pw_name,
            "Set ssh.user to %s." % account.pw_name,
        )
    if os.geteuid() == 0 and account.pw_uid != 0:
        os.setgroups([account.pw_gid])
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)
    os.umask(0o077)
    return account


def make_directory(path: str) -> None:
    if not os.path.lexists(path):
        os.mkdir(path, 0o700)
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise CannotError(
            "%s: a directory (no link) of the server's user that no other can write to" % path,
            "mode %04o, owner uid %d" % (stat.S_IMODE(status.st_mode), status.st_uid),
            "Remove it, or set wal_ssh.directory to another.",
        )


def make_key(directory: str, comment: str) -> None:
    """A key pair, whole or not at all."""
    path = os.path.join(directory, KEY)
    if os.path.lexists(path) and os.path.lexists(path + ".pub"):
        return
    with tempfile.TemporaryDirectory(prefix=".key-", dir=directory) as temporary:
        new = os.path.join(temporary, KEY)
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", new]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise CannotError(
                "ssh and ssh-keygen on the server's host", "missing", "apt-get install openssh-client"
            ) from None
        if done.returncode != 0:
            raise CannotError("a new key by ssh-keygen", done.stderr.strip(), "See what it lacks.")
        os.rename(new + ".pub", path + ".pub")
        os.rename(new, path)


def write(path: str, text: str) -> None:
    descriptor, temporary = tempfile.mkstemp(prefix=".new-", dir=os.path.dirname(path))
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.rename(temporary, path)


def content_of(path: str) -> str | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, encoding="utf-8", errors="replace") as stream:
        return stream.read()


if __name__ == "__main__":
    main()
