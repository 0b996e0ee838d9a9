# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What logrotate says, as data. Its exit status is no proof: an unknown directive is an ``error:`` with status 0."""

from __future__ import annotations

import re
import typing as t

LOCKED = 3

# What an operator can do about the errors that are seen in the field.
_ADVICE = (
    (
        r"insecure permissions",
        "Set `su` in the policy to the user and group that own the directory, or take write permission from others.",
    ),
    (r"stat of .* failed: No such file", "Correct the path, or set missing_ok if the log may be absent."),
    (
        r"unknown (?:option|user|group)|keyword .* not properly",
        "Correct the policy: logrotate ignores what it does not know.",
    ),
    (r"duplicate log entry", "Let one policy alone name that log."),
    (r"postrotate script", "See what the postrotate steps said, and run them by hand."),
    (
        r"Permission denied|Operation not permitted|Read-only file system",
        "Give the user who rotates write permission in the log's directory, or set `su`.",
    ),
    (r"No space left", "Free space on the log's file system, then run again."),
    (r"Ignoring .* because", "The configuration must belong to who runs logrotate, and nobody else may write to it."),
    (r"File name too long", "Give the log a shorter name: a rotated file's name is longer."),
    (r"last rotated in the future", "Set the clock right."),
)


def errors(output: str) -> list[str]:
    """The messages of every ``error:`` line in logrotate's *output*, each once, in order."""
    return list(dict.fromkeys(re.findall(r"^error: *(.+)$", output, flags=re.MULTILINE)))


def state_errors(messages: t.Sequence[str]) -> list[str]:
    """Those *messages* that complain about the content of the state file."""
    return [
        message
        for message in messages
        if re.match(r"bad (?:top )?line(?: \d+)? in state file|could not read state", message)
    ]


def advice_for(messages: t.Sequence[str]) -> str:
    """What to do about *messages*, each piece of advice once; empty when there are none."""
    if not messages:
        return ""
    advice = [text for pattern, text in _ADVICE if any(re.search(pattern, message) for message in messages)]
    return " ".join(advice) or "Run logrotate -d with this configuration by hand and mend what it complains about."


def due(dry_run: str) -> set[str]:
    """The logs that a dry run (``logrotate -d``) would rotate, by their names as printed."""
    found: set[str] = set()
    for story in re.split(r"^considering log ", dry_run, flags=re.MULTILINE)[1:]:
        name, _separator, rest = story.partition("\n  Now: ")
        if re.search(r"^  log needs rotating", rest, flags=re.MULTILINE):
            found.add(re.sub(r"\nCreating new state$", "", name))
    return found


def printed(path: str) -> str:
    """*path* as it may stand in a line of a result: without control characters and undecodable bytes."""
    shown = path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return re.sub(r"[\x00-\x1f\x7f]", lambda match: repr(match.group())[1:-1], shown)


def with_printed_names(said: str, paths: t.Iterable[str]) -> str:
    """*said* with those of *paths* that break lines shown as :func:`printed`: no name can pass for a message."""
    for path in paths:
        if "\n" in path or "\r" in path:
            shown = path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
            said = said.replace(re.sub(r"\r\n?", "\n", shown), printed(path))
    return said
