"""What a vacuum's result shows stays readable, however many tables there are."""

from __future__ import annotations

from ansible_collections.wellkept.maintenance.plugins.module_utils.result import Part
from ansible_collections.wellkept.maintenance.plugins.module_utils.vacuum.report import MOST_LISTED, _record_changes


def test_the_changes_of_thousands_of_tables_are_summed_up_by_database() -> None:
    part = Part()
    for database in ("one", "two"):
        changes = [(f"public.t{number} in the database {database}", "due", "done") for number in range(MOST_LISTED + 7)]
        _record_changes(database, changes, part)
    assert len(part.changes) == MOST_LISTED + 2
    summed = [change["name"] for change in part.changes if change["kind"] == "tables"]
    assert summed[0] == "7 more tables in the database one"
    assert summed[1] == f"{MOST_LISTED + 7} tables in the database two"


def test_a_few_tables_are_named_each() -> None:
    part = Part()
    _record_changes("one", [("public.a in the database one", "due", "done")], part)
    assert [change["kind"] for change in part.changes] == ["table"]
