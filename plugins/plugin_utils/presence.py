# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How the action that opens a run learns that the ledger callback is at work in the controller's process.

A callback that is not enabled says nothing, and one that raises is only a warning: without this, work would be done
and never recorded.
"""

from __future__ import annotations

import os

_VARIABLE = "WELLKEPT_LEDGER_CALLBACK"


def announce() -> None:
    """Called by the callback: the workers, which carry out actions, inherit this environment."""
    os.environ[_VARIABLE] = str(os.getpid())


def is_announced() -> bool:
    return os.environ.get(_VARIABLE) in (str(os.getppid()), str(os.getpid()))
