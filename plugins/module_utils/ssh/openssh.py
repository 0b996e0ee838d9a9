# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The program ssh, which asks nobody anything, and what runs on the other host by it."""

from __future__ import annotations

import shlex
import subprocess

from ..backup.programs import guarded
from ..backup.wal.wal_over_ssh import settings as trusted
from ..processes import require_program
from . import errors
from .login import ALIVE_SECONDS, ALIVE_TRIES, CONNECT_SECONDS, Login


def settings(login: Login) -> list[str]:
    """What ssh is to be configured to, as ``Keyword=value``.

    What is trusted is written beside the WAL, for the server's host has nothing of ours but the two programs there.
    """
    return [
        *trusted(login.key_file, login.known_hosts, CONNECT_SECONDS),
        *(f"ServerAliveInterval={ALIVE_SECONDS}", f"ServerAliveCountMax={ALIVE_TRIES}"),
        *("ForwardAgent=no", "ForwardX11=no", "PermitLocalCommand=no"),
    ]


def command(login: Login, *more: str) -> list[str]:
    """ssh by *login*, with the options *more*; what is to run there is to be added."""
    program = require_program("ssh", what=login.purpose, package="openssh-client")
    words = [word for setting in settings(login) for word in ("-o", setting)]
    return [
        *(program, "-F", "none", "-T", "-x", "-a", "-p", str(login.port), "-l", login.user),
        *(*words, *more, "--", login.host),
    ]


def run_there(login: Login, program: str, text: str, *, timeout: float = 120) -> str:
    """Run the *program*, in Python, there with *text* as input; returns what it wrote, or raises."""
    try:
        done = subprocess.run(
            guarded([*command(login), python_reading_program()]),
            input=framed(program) + text.encode(),
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise errors.unreachable(login, f"no answer within {timeout:g} s") from None
    if done.returncode != 0:
        raise errors.from_openssh(login, done.stderr.decode(errors="replace"))
    return done.stdout.decode()


def python_reading_program() -> str:
    """What is to run there, so that a program comes by its standard input and stands in no list of processes."""
    reading = "import sys; f = sys.stdin.buffer; exec(compile(f.read(int(f.readline())), 'wellkept', 'exec'))"
    return f"exec python3 -I -S -c {shlex.quote(reading)}"


def framed(program: str) -> bytes:
    """The *program* as :func:`python_reading_program` reads it; what follows is for the program itself."""
    text = program.encode()
    return b"%d\n%s" % (len(text), text)
