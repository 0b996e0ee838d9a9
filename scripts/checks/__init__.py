"""The checks that make a backup honest, each with what it takes to switch it off and the tests that must then fail.

One module for each part of the work; to add a check, add an entry to the list of its module, or a module to ``PARTS``.
``scripts/without_each_check`` tries them.
"""

from __future__ import annotations

from . import mirror, packed, pgbackrest, restore, stores, verification, wal
from .switch import Switch

PARTS = (verification, wal, packed, stores, pgbackrest, restore, mirror)


def every() -> dict[str, Switch]:
    """All checks by their names."""
    found: dict[str, Switch] = {}
    for part in PARTS:
        for switch in part.switches():
            if switch.name in found:
                raise SystemExit(f"two checks are called {switch.name}")
            found[switch.name] = switch
    return found
