"""A place for the tests of vacuum: databases of their own, tables that need something, and what the module said."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from support.modules import checks_by_name, run_module
from support.postgresql import PostgresServer

_numbers = itertools.count(1)


class VacuumSite:
    """One database of a server, made for one test."""

    def __init__(self, server: PostgresServer, state_dir: Path, name: str = "") -> None:
        self.server = server
        self.name = name or f"vacuum_{next(_numbers)}"
        self.state_dir = state_dir
        server.sql(f'CREATE DATABASE "{self.name}"')

    def sql(self, statement: str) -> list[Any]:
        return self.server.sql(statement, self.name)

    def value(self, statement: str) -> Any:
        return self.sql(statement)[0][0]

    def options(self, **options: Any) -> dict[str, Any]:
        return {**self.server.login(), "databases": [self.name], "state_dir": str(self.state_dir), **options}

    def vacuum(self, *, check: bool = False, **options: Any) -> dict[str, Any]:
        return run_module("postgresql_vacuum", self.options(**options), check=check)

    def fill(self, table: str = "orders", rows: int = 20000, *, delete: bool = True) -> None:
        """A table that was never vacuumed, of whose rows a third are dead."""
        self.sql(f"CREATE TABLE {table} (id int PRIMARY KEY, words text)")
        self.sql(f"INSERT INTO {table} SELECT g, repeat('w', 60) FROM generate_series(1, {rows}) g")
        if delete:
            self.sql(f"DELETE FROM {table} WHERE id % 3 = 0")

    def dirty(self, table: str) -> int:
        """Pages of *table* that are not all-visible, by the visibility map and nothing of ours."""
        self.sql("CREATE EXTENSION IF NOT EXISTS pg_visibility")
        return int(self.value(
            f"SELECT pg_relation_size('{table}') / 8192 - all_visible FROM pg_visibility_map_summary('{table}')"
        ))  # fmt: skip

    def age(self, table: str) -> int:
        return int(self.value(f"SELECT age(relfrozenxid) FROM pg_class WHERE oid = '{table}'::regclass"))


def changed_tables(shown: dict[str, Any]) -> set[str]:
    """The tables in the changes, without the system catalogs."""
    names = {change["name"].split(" in the database")[0] for change in shown["changes"] if change["kind"] == "table"}
    return {name for name in names if not name.startswith(("pg_catalog.", "information_schema."))}


def done(shown: dict[str, Any], database: str) -> dict[str, dict[str, Any]]:
    """The evidence of what was done in *database*, by table; the system catalogs left out."""
    evidence = checks_by_name(shown)[f"vacuum of the database {database}"]["evidence"]
    found = {one["table"]: one for one in evidence["done"]}
    return {name: one for name, one in found.items() if not name.startswith(("pg_catalog.", "information_schema."))}


def planned(shown: dict[str, Any], database: str) -> dict[str, dict[str, Any]]:
    """The evidence of what a run in check mode would do in *database*, by table."""
    evidence = checks_by_name(shown)[f"vacuum of the database {database}"]["evidence"]
    return {one["table"]: one for one in evidence["plan"] if not one["table"].startswith("pg_catalog.")}


def check_like(shown: dict[str, Any], beginning: str) -> dict[str, Any]:
    """The one check whose name begins with *beginning*."""
    found = [check for check in shown["checks"] if check["name"].startswith(beginning)]
    assert len(found) == 1, [check["name"] for check in shown["checks"]]
    only: dict[str, Any] = found[0]
    return only
