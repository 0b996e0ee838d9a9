# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What holds for all destinations, and what a run showed of one."""

from __future__ import annotations

import typing as t

from ..backup.remembered import Budget
from .append_only import Proof
from .decision import Decision, Removal


class Settings(t.NamedTuple):
    """What holds for all destinations."""

    reread_within: float
    remove_at_most: float
    budget: Budget
    owner: str
    holder: t.Dict[str, t.Any]
    scratch: str


class Outcome:
    """What a run showed of a destination."""

    def __init__(self) -> None:
        # Sizes by name.
        self.to_send: t.Dict[str, int] = {}
        self.sent: t.Dict[str, int] = {}
        self.verified_files = 0
        self.verified_bytes = 0
        self.left_bytes = 0
        self.problems: t.Dict[str, str] = {}
        self.repaired: t.List[str] = []
        self.removed: t.List[str] = []
        self.seconds = 0.0
        self.decision = Decision({}, [], [], {}, [], [], [], [])
        self.removal = Removal([], "", [])
        self.proof: t.Optional[Proof] = None
        self.waiting: t.List[str] = []
        # Labels of complete backups there, by source and cluster.
        self.backups: t.Dict[str, t.List[str]] = {}
        self.verifies_by = ""
        self.files = 0
        self.bytes = 0
