# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What earlier runs looked at, and when: so that everything has its turn when the time does not suffice for all.

Losing the file costs time, and the dates that need two measurements; never truth.
"""

from __future__ import annotations

import os
import typing as t

from ..files import read_json, write_json

FORMAT = 1
SOUND, DAMAGED, CRASHED, TOO_LONG = "sound", "damaged", "crashed", "too long"

_NUMBERS = ("file", "seen", "tried", "checked", "seconds", "size", "next_block", "gave_up_after")


class Entry(t.NamedTuple):
    """What is remembered of one index or table. Times are POSIX seconds, 0 for never.

    ``level`` says how closely it was looked at; ``next_block`` is where to go on with a table that took too long.
    """

    file: int = 0
    seen: float = 0.0
    tried: float = 0.0
    checked: float = 0.0
    state: str = ""
    level: str = ""
    seconds: float = 0.0
    size: int = 0
    next_block: int = 0
    gave_up_after: float = 0.0


class Memory:
    """What is remembered of one cluster, in one file of *directory*; :meth:`save` writes it."""

    def __init__(self, directory: str, cluster: str) -> None:
        self.path = os.path.join(directory, f"{cluster}.json")
        self.remark = ""
        self.entries: t.Dict[str, Entry] = {}
        self.sequences: t.Dict[str, t.List[t.List[float]]] = {}
        self.unused: t.Dict[str, float] = {}
        try:
            document = read_json(self.path)
            if document is not None:
                self._take(document)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            self.remark = (
                f"{self.path} could not be used ({' '.join(str(error).split())[:100]}), so all is looked at anew"
            )
            self.entries, self.sequences, self.unused = {}, {}, {}

    def _take(self, document: t.Any) -> None:
        if document["format"] != FORMAT:
            raise ValueError("it is of another format")
        for key, fields in document["things"].items():
            entry = Entry(**fields)
            if not all(isinstance(getattr(entry, name), (int, float)) for name in _NUMBERS):
                raise ValueError(f"its entry {key} is damaged")
            self.entries[key] = entry
        self.sequences = {
            key: [[float(when), int(value)] for when, value in points] for key, points in document["sequences"].items()
        }
        self.unused = {key: float(since) for key, since in document["unused"].items()}

    def of(self, key: str) -> Entry:
        return self.entries.get(key, Entry())

    def forget_others(self, known: t.Container[str], databases: t.Container[str]) -> None:
        """Forget what is gone from the *databases* (their OIDs as text) that were listed."""
        for key in [key for key in self.entries if key.split("/")[0] in databases and key not in known]:
            del self.entries[key]

    def save(self) -> None:
        """Write it whole or not at all, for its owner alone."""
        os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
        things = {key: entry._asdict() for key, entry in self.entries.items()}
        document = {"format": FORMAT, "things": things, "sequences": self.sequences, "unused": self.unused}
        write_json(self.path, document)
