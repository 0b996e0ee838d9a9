"""What the database of the platform says."""

from __future__ import annotations


def psql(host, statement, database="learning"):
    return host.check_output(
        "psql --no-psqlrc --tuples-only --no-align --host /run/postgresql --username maintenance %s --command %s",
        database,
        statement,
    )
