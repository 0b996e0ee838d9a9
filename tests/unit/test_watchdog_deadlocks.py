"""A watched statement gives way when it waits for somebody who waits for it, be it by way of others."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.database.lock_waits import Look, Other, _behind
from ansible_collections.wellkept.maintenance.plugins.module_utils.database.watchdog import why_stop

US = 1


def row(pid: int, *blockers: int) -> dict[str, Any]:
    return {"role": "waits" if US in blockers else "queues", "pid": pid, "blockers": list(blockers)}


@pytest.mark.parametrize(
    ("rows", "behind"),
    [
        ([], set()),
        ([row(2, US)], {2}),
        ([row(2, US), row(3, 2), row(4, 3, 9)], {2, 3, 4}),
        ([row(3, 2), row(2, 9)], set()),
        ([row(2, 3), row(3, 2)], set()),
        ([row(2, US), {"role": "holds", "pid": 5, "blockers": []}], {2}),
    ],
)  # fmt: skip
def test_who_waits_on_us_by_way_of_others_is_known(rows: list[dict[str, Any]], behind: set[int]) -> None:
    assert _behind(rows, US) == behind


@pytest.mark.parametrize("holder", [2, 3])
def test_a_statement_is_stopped_at_once_when_it_waits_for_who_waits_for_it(holder: int) -> None:
    waiting = Other(2, "psql", "app", "client backend", 0.0)
    holding = Other(holder, "psql", "app", "client backend", 0.0)
    kind, words = why_stop(Look((waiting,), (holding,), 10.0, frozenset({2, 3})), "", 10.1, 60.0)
    assert (kind, "deadlock" in words) == ("blocking", True)


def test_a_statement_may_wait_for_others_while_somebody_else_waits_for_it_for_a_moment() -> None:
    waiting = Other(2, "psql", "app", "client backend", 0.1)
    holding = Other(9, "psql", "app", "client backend", 5.0)
    assert why_stop(Look((waiting,), (holding,), 10.0, frozenset({2})), "", 10.1, 1.0) == ("", "")
