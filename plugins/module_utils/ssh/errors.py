# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What stands in the way of a login, in the same words whatever speaks SSH, and what to do about it."""

from __future__ import annotations

import re
import typing as t

from ..errors import MaintenanceError
from ..processes import last_words
from .login import Login

_NOT_LET_IN = re.compile(r"Permission denied \([a-z]")
_NO_ANSWER = re.compile(r"timed out|refused|[Rr]esolve|No route|unreachable")


def from_openssh(login: Login, said: str) -> MaintenanceError:
    """The error for an ssh that ended with the words *said*."""
    refused = login_refused(login, said)
    if refused:
        return refused
    words = _shown(said)
    if _NO_ANSWER.search(words):
        return unreachable(login, words)
    return MaintenanceError(
        login.purpose,
        where=str(login),
        expected="a connection",
        observed=words,
        advice="See that sshd runs there and lets this key in; the server's log there says more.",
    )


def login_refused(login: Login, said: str) -> t.Optional[MaintenanceError]:
    """The error for words of ssh about host keys or our own; None where they are about neither."""
    if "host key is known" in said:
        return host_key_unknown(login, _shown(said))
    if "Host key verification failed" in said or "HOST IDENTIFICATION HAS CHANGED" in said:
        return host_key_changed(login, _shown(said))
    return not_let_in(login) if _NOT_LET_IN.search(said) else None


def host_key_changed(login: Login, words: str = "") -> MaintenanceError:
    return MaintenanceError(
        login.purpose,
        where=str(login),
        expected=f"the host key in {login.known_hosts or 'known_hosts'}",
        observed="another one: it is another host, or somebody stands in between; nothing was sent" + _added(words),
        advice=f"Ask who runs {login.host} whether its key was changed. If so, put the new one, from them, in "
        "known_hosts; otherwise find out who answers in its place.",
    )


def host_key_unknown(login: Login, words: str = "") -> MaintenanceError:
    return MaintenanceError(
        login.purpose,
        where=str(login),
        expected=f"a line for this host and port in {login.known_hosts or 'known_hosts'}",
        observed="there is none, so nothing was sent" + _added(words),
        advice="Get the host's key from those who run it (ssh-keyscan shows what answers, not who), and add it there.",
    )


def not_let_in(login: Login) -> MaintenanceError:
    return MaintenanceError(
        login.purpose,
        where=str(login),
        expected=f"the key {login.key_file or 'that ssh takes by itself'} to be let in",
        observed="it was refused: Permission denied",
        advice=f"Add its public half to authorized_keys of {login.user} on {login.host}, or correct key_file; the log "
        "of sshd there says more.",
    )


def unreachable(login: Login, words: str) -> MaintenanceError:
    return MaintenanceError(
        login.purpose,
        where=str(login),
        expected="an SSH server that answers, and files for the login that can be read",
        observed=words,
        advice=f"Start {login.host} or its sshd, or correct host and port; see whether the port is open from here, and "
        "whether key_file and known_hosts exist.",
    )


def _shown(said: str) -> str:
    """Without the frame that ssh draws around a warning."""
    return last_words("\n".join(line for line in said.splitlines() if not line.startswith("@")))


def _added(words: str) -> str:
    return f" ({words})" if words else ""
