# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From policies, as an operator states them, to the configuration that logrotate reads."""

from __future__ import annotations

import dataclasses
import math
import os
import re
import signal
import typing as t

from ..errors import MaintenanceError
from ..quantities import parse_duration, parse_size

FREQUENCIES = ("hourly", "daily", "weekly", "monthly", "yearly")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_ACCOUNT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]*\$?")
# logrotate ends a section at a brace and a path at a newline, quoted or not; a backslash means different things to it
# and to glob().
_NOT_IN_PATH = re.compile(r"[{}\\\x00-\x1f\x7f]")
_SCRIPT = re.compile(
    r"^[ \t]*(?:prerotate|postrotate|firstaction|lastaction|preremove)\b.*?^[ \t]*endscript\b", re.MULTILINE | re.DOTALL
)
# Directives that would name rotated files differently, so that a rotation could no longer be recognised, that open a
# script or read other files, and those that have an option of their own here.
_REFUSED_DIRECTIVES = {
    "dateext", "olddir", "extension", "addextension", "compressext", "start", "copy", "renamecopy", "mail", "include",
    "tabooext", "taboopat", "prerotate", "postrotate", "firstaction", "lastaction", "preremove", "endscript", "su",
    "create", "nocreate", "copytruncate", "rotate", "size", "maxsize", "minsize", "hourly", "daily", "weekly",
    "monthly", "yearly", "compress", "delaycompress", "sharedscripts", "missingok", "notifempty", "ifempty", "maxage",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of postrotate: a command, or a signal to the process named in a file."""

    command: tuple[str, ...] = ()
    signal: str = ""
    pid_file: str = ""


@dataclasses.dataclass(frozen=True)
class Policy:
    """How a set of logs is rotated, with every value checked; made by :func:`policies_of`."""

    name: str
    paths: tuple[str, ...]
    max_bytes: int | None = None
    frequency: str = ""
    keep: int = 7
    max_age_days: int | None = None
    compress: bool = True
    delay_compress: bool = True
    create: str = ""
    copy_truncate: bool = False
    missing_ok: bool = False
    not_if_empty: bool = True
    shared_scripts: bool = True
    su: str = ""
    postrotate: tuple[Step, ...] = ()
    extra_directives: tuple[str, ...] = ()


def policies_of(options: t.Sequence[t.Mapping[str, t.Any]]) -> list[Policy]:
    """The policies that the module's option ``policies`` states; a MaintenanceError names a value that is refused."""
    policies = [_policy(option) for option in options]
    names = [policy.name for policy in policies]
    for name in names:
        if names.count(name) > 1:
            raise _refused(name, "name", name, "a name of its own for each policy")
    return policies


def render(policies: t.Sequence[Policy], marker_dir: str) -> str:
    """logrotate's configuration for *policies*; their postrotate scripts leave their exit status in *marker_dir*."""
    heading = (
        "# Written by wellkept.maintenance.log_rotation from the variable log_rotation_policies; changes are lost."
    )
    return "\n\n".join([heading, *(_section(policy, marker_dir) for policy in policies)]) + "\n"


def marker_paths(marker_dir: str, name: str) -> tuple[str, str]:
    """Where the postrotate script of policy *name* leaves its exit statuses, and what it said."""
    base = os.path.join(marker_dir, name)
    return base + ".status", base + ".output"


def shell_quoted(text: str) -> str:
    """*text* as one word for sh. Always quoted, so that no line of a script can look like logrotate's ``endscript``."""
    return "'" + text.replace("'", "'\"'\"'") + "'"


def patterns_of(configuration: str) -> list[str]:
    """The path patterns that a logrotate configuration names, scripts and directives left out.

    ``'/var/log/a.log "/var/log/b c.log" {\\n daily\\n}'`` → ``['/var/log/a.log', '/var/log/b c.log']``
    """
    outside = _SCRIPT.sub("", configuration)
    outside = re.sub(r"^[ \t]*#.*$", "", outside, flags=re.MULTILINE)
    patterns: list[str] = []
    for heading in re.findall(r"([^{}]*)\{[^}]*\}", outside):
        # Directives before a section stand on lines of their own and do not start with a slash or a quote.
        lines = [line for line in heading.splitlines() if re.match(r"\s*[\"'/]", line)]
        for double, single, plain in re.findall(r"\"((?:[^\"\\]|\\.)*)\"|'([^']*)'|(\S+)", "\n".join(lines)):
            patterns.append(double.replace('\\"', '"') or single or plain)
    return patterns


def as_glob(pattern: str) -> str:
    """logrotate's (POSIX) *pattern* as Python's glob understands it: ``[^x]`` is ``[!x]``."""
    return pattern.replace("[^", "[!")


def _section(policy: Policy, marker_dir: str) -> str:
    lines = [f'"{_quote_escaped(path)}"' for path in policy.paths]
    lines[-1] += " {"
    lines += [f"    {directive}" for directive in _directives(policy)]
    if policy.postrotate:
        lines += ["    postrotate", *(f"        {line}" for line in _script(policy, marker_dir)), "    endscript"]
    return "\n".join([*lines, "}"])


def _quote_escaped(path: str) -> str:
    return path.replace('"', '\\"')


def _directives(policy: Policy) -> t.Iterator[str]:
    if policy.frequency:
        yield policy.frequency
    if policy.max_bytes is not None:
        yield f"{'maxsize' if policy.frequency else 'size'} {policy.max_bytes}"
    yield f"rotate {policy.keep}"
    if policy.max_age_days is not None:
        yield f"maxage {policy.max_age_days}"
    yield "compress" if policy.compress else "nocompress"
    if policy.compress and policy.delay_compress:
        yield "delaycompress"
    yield "copytruncate" if policy.copy_truncate else f"create {policy.create}".rstrip()
    yield "missingok" if policy.missing_ok else "nomissingok"
    yield "notifempty" if policy.not_if_empty else "ifempty"
    if policy.shared_scripts and policy.postrotate:
        yield "sharedscripts"
    if policy.su:
        yield f"su {policy.su}"
    yield from policy.extra_directives


def _script(policy: Policy, marker_dir: str) -> t.Iterator[str]:
    status, output = (shell_quoted(path) for path in marker_paths(marker_dir, policy.name))
    yield "("
    for step in policy.postrotate:
        yield from _command_lines(step) if step.command else _signal_lines(step)
    yield f") >> {output} 2>&1"
    yield "status=$?"
    yield f'echo "$status" >> {status}'
    yield 'exit "$status"'


def _command_lines(step: Step) -> t.Iterator[str]:
    yield " ".join(shell_quoted(argument) for argument in step.command) + " || exit"


def _signal_lines(step: Step) -> t.Iterator[str]:
    path = shell_quoted(step.pid_file)
    yield f"if [ -e {path} ]; then"
    yield f"    read -r pid rest < {path}"
    yield '    case "$pid" in'
    yield f"        ''|0*|1|*[!0-9]*) echo \"no process id in\" {path}; exit 1 ;;"
    yield "    esac"
    yield f'    kill -s {step.signal} "$pid" || exit'
    yield f'else echo "nobody to tell: there is no" {path}; fi'


def _policy(option: t.Mapping[str, t.Any]) -> Policy:
    name = option["name"]
    if not _NAME.fullmatch(name):
        raise _refused(name, "name", name, "letters, digits, underscore, dot and hyphen")
    if option["max_bytes"] is None and not option["frequency"]:
        raise _refused(name, "max_bytes", None, "max_bytes, frequency or both: else nothing is ever rotated")
    if option["keep"] < 1:
        raise _refused(name, "keep", option["keep"], "1 or more: with 0 a rotation throws the log away")
    if not option["paths"]:
        raise _refused(name, "paths", [], "at least one path")
    return Policy(
        name=name,
        paths=tuple(_path(name, path) for path in option["paths"]),
        max_bytes=_quantity(name, "max_bytes", option["max_bytes"], parse_size),
        frequency=option["frequency"] or "",
        keep=option["keep"],
        max_age_days=_days(_quantity(name, "max_age", option["max_age"], parse_duration)),
        compress=option["compress"],
        delay_compress=option["delay_compress"],
        create=_create(name, option["create"] or {}),
        copy_truncate=option["copy_truncate"],
        missing_ok=option["missing_ok"],
        not_if_empty=option["not_if_empty"],
        shared_scripts=option["shared_scripts"],
        su=_su(name, option["su"] or {}),
        postrotate=tuple(_step(name, step) for step in option["postrotate"] or ()),
        extra_directives=tuple(_directive(name, line) for line in option["extra_directives"] or ()),
    )


def _path(name: str, path: str) -> str:
    if not path.startswith("/") or _NOT_IN_PATH.search(path) or "//" in path or ".." in path.split("/"):
        raise _refused(
            name, "paths", path, "an absolute path without braces, backslashes, control characters, // and .. "
            "(a wildcard such as ? stands for a character that cannot be written)",
        )  # fmt: skip
    return path


def _quantity(name: str, key: str, text: t.Any, parse: t.Callable[[t.Any], t.Any]) -> t.Any:
    if text in (None, ""):
        return None
    try:
        return parse(text)
    except ValueError as error:
        raise _refused(name, key, text, str(error)) from None


def _days(seconds: float | None) -> int | None:
    return None if seconds is None else max(1, math.ceil(seconds / 86400))


def _create(name: str, create: t.Mapping[str, t.Any]) -> str:
    mode, owner, group = (str(create.get(key) or "") for key in ("mode", "owner", "group"))
    if mode and not re.fullmatch(r"0?[0-7]{3}", mode):
        raise _refused(name, "create.mode", mode, 'an octal mode such as "0640"')
    if bool(owner) != bool(group) or (owner and not mode):
        raise _refused(name, "create", dict(create), "mode alone, or mode, owner and group together")
    words = [mode, *(_account(name, "create", account) for account in (owner, group) if account)]
    return " ".join(word for word in words if word)


def _su(name: str, su: t.Mapping[str, t.Any]) -> str:
    return " ".join(_account(name, "su", su[key]) for key in ("user", "group")) if su else ""


def _account(name: str, key: str, account: str) -> str:
    if not _ACCOUNT.fullmatch(account):
        raise _refused(name, key, account, "the name of a user or group")
    return account


def _step(name: str, step: t.Mapping[str, t.Any]) -> Step:
    command = tuple(step.get("command") or ())
    name_of_signal = str(step.get("signal") or "").upper()
    name_of_signal = name_of_signal[3:] if name_of_signal.startswith("SIG") else name_of_signal
    pid_file = step.get("pid_file") or ""
    for word in (*command, pid_file):
        if re.search(r"[\x00\r\n]", word):
            raise _refused(name, "postrotate", word, "words without newlines")
    if name_of_signal and "SIG" + name_of_signal not in signal.Signals.__members__:
        raise _refused(name, "postrotate.signal", name_of_signal, "the name of a signal such as HUP or USR1")
    if command and not command[0].startswith("/") and "/" in command[0]:
        raise _refused(name, "postrotate.command", command[0], "an absolute path, or a name to be found in PATH")
    return Step(command, name_of_signal, pid_file)


def _directive(name: str, line: str) -> str:
    word = (line.split() or [""])[0]
    if not re.fullmatch(r"[a-z]+", word) or re.search(r"[{}\x00-\x08\x0a-\x1f]", line):
        raise _refused(name, "extra_directives", line, "one directive of logrotate, without newlines and braces")
    if word in _REFUSED_DIRECTIVES:
        raise _refused(name, "extra_directives", line, f"an option of the policy for {word}, if there is one: as a "
                       "directive it would defeat the proof of the rotation")  # fmt: skip
    return line


def _refused(policy: str, key: str, value: t.Any, expected: str) -> MaintenanceError:
    return MaintenanceError(
        f"read the log rotation policy {policy!r}",
        where=key,
        expected=expected,
        observed=repr(value),
        advice=f"Correct {key} of that policy in log_rotation_policies.",
    )
