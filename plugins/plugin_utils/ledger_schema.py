# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ledger's tables, and how an older ledger is brought up to them."""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

metadata = sa.MetaData()

schema_versions = sa.Table(
    "ledger_schema",
    metadata,
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("applied", sa.String, nullable=False),
)

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("started", sa.String, nullable=False, index=True),
    sa.Column("document", sa.JSON, nullable=False),
)

run_endings = sa.Table(
    "run_endings",
    metadata,
    sa.Column("run_id", sa.String(36), sa.ForeignKey("runs.id"), primary_key=True),
    sa.Column("ended", sa.String, nullable=False),
    sa.Column("state", sa.String, nullable=False),  # closed, or interrupted
    sa.Column("verdict", sa.String, nullable=False),
    sa.Column("detail", sa.String, nullable=False),
)

parts = sa.Table(
    "parts",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("run_id", sa.String(36), sa.ForeignKey("runs.id"), nullable=False, index=True),
    sa.Column("host", sa.String, nullable=False),
    sa.Column("activity", sa.String, nullable=False),
    sa.Column("received", sa.String, nullable=False),
    sa.Column("document", sa.JSON, nullable=False),
)

results = sa.Table(
    "results",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("run_id", sa.String(36), sa.ForeignKey("runs.id"), nullable=False),
    sa.Column("host", sa.String, nullable=False),
    sa.Column("activity", sa.String, nullable=False),
    sa.Column("started", sa.String, nullable=False),
    sa.Column("finished", sa.String, nullable=False),
    sa.Column("outcome", sa.String, nullable=False),
    sa.Column("check_mode", sa.Boolean, nullable=False),
    sa.Column("document", sa.JSON, nullable=False),
    sa.UniqueConstraint("run_id", "host", "activity"),
    sa.Index("results_by_activity", "activity", "host", "finished"),
)

_SQLITE_GUARD = """CREATE TRIGGER {table}_no_{verb} BEFORE {verb} ON {table}
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"""
_POSTGRESQL_GUARD_FUNCTION = """CREATE FUNCTION ledger_is_append_only() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN RAISE EXCEPTION 'the ledger is append-only'; END$$"""
_POSTGRESQL_GUARD = """CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}
FOR EACH STATEMENT EXECUTE FUNCTION ledger_is_append_only()"""


def create(connection: sa.Connection) -> None:
    """Make all tables, and the triggers that keep them append-only, in an empty database."""
    metadata.create_all(connection)
    guarded = ("runs", "run_endings", "parts", "results")
    if connection.dialect.name == "sqlite":
        for table in guarded:
            for verb in ("UPDATE", "DELETE"):
                connection.exec_driver_sql(_SQLITE_GUARD.format(table=table, verb=verb))
    else:
        connection.exec_driver_sql(_POSTGRESQL_GUARD_FUNCTION)
        for table in guarded:
            connection.exec_driver_sql(_POSTGRESQL_GUARD.format(table=table))


# Step n brings a ledger of version n + 1 to version n + 2. A step that has shipped is never changed: add the next one.
MIGRATIONS: tuple[Callable[[sa.Connection], None], ...] = ()
