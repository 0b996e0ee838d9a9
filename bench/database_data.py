"""The data that `bench/database.py` measures on: three databases in which some tables and indexes need care.

Everything is derived from the row's number by PostgreSQL's own hash functions, so that it is the same each time.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import psycopg
from support.postgresql import PostgresServer

DATABASES = ("learning", "shop", "archive")
# What the load changes: a few rows of a table that is large enough not to be due for it.
ACCOUNTS = 100_000
BUSY_ACCOUNTS = 2_000


@dataclass(frozen=True)
class Table:
    """What is made, in this order: rows, indexes, VACUUM ANALYZE, what happened to it since, and later indexes."""

    database: str
    name: str
    millions: float
    indexes: str
    deleted: str = ""
    updated: str = ""
    # Cleaned up after that, so that the indexes are left with the holes; otherwise a vacuum is due.
    cleaned: bool = True
    later: str = ""
    storage: str = ""
    partitions: int = 0


def about(percent: int) -> str:
    """A condition that holds for *percent* of the rows, scattered over the whole table."""
    return f"abs(hashint8(id)::bigint) % 100 < {percent}"


TABLES = (
    # Random deletes, a range delete, and deduplicated keys: what an index does not recover from.
    Table("learning", "attempts", 1.5, "id code", deleted=about(65), later="at"),
    Table("learning", "sessions", 1.5, "id user", deleted="id <= {rows} * 0.8", later="code"),
    Table("learning", "submissions", 2.4, "user", deleted=about(60), later="id at"),
    Table("shop", "stock", 0.8, "code", deleted=about(60), later="id"),
    Table("learning", "places_moved", 0.5, "place", deleted=about(60), later="id"),
    # Deletes that nobody has vacuumed yet, HOT updates, and rows that were only ever inserted.
    Table("learning", "carts", 1.0, "id user code", deleted=about(22), cleaned=False),
    Table("learning", "counters", 0.5, "id code", updated=about(60), cleaned=False, storage="WITH (fillfactor = 60)"),
    Table("learning", "events", 2.0, "id at code", cleaned=False),
    Table("archive", "audit", 1.2, "id at code", cleaned=False),
    # Healthy.
    Table("learning", "courses", 0.002, "id code"),
    Table("learning", "students", 0.4, "id code at"),
    Table("learning", "enrolments", 0.8, "id user at code"),
    Table("learning", "grades", 0.6, "id user at code"),
    Table("learning", "messages", 0.6, "id user at"),
    Table("learning", "forum_posts", 0.4, "id user tags"),
    Table("learning", "places", 0.3, "id place"),
    Table("learning", "files", 0.4, "id code"),
    Table("learning", "visits", 1.0, "id user", partitions=4),
    Table("shop", "orders", 0.8, "id user code at"),
    Table("shop", "order_lines", 1.0, "id user"),
    Table("shop", "products", 0.1, "id code"),
    Table("archive", "old_orders", 0.8, "id at code brin"),
)

INDEXES = {
    "id": "CREATE UNIQUE INDEX {table}_id ON {table} (id)",
    "user": "CREATE INDEX {table}_user ON {table} (user_id)",
    "code": "CREATE INDEX {table}_code ON {table} (code)",
    "at": "CREATE INDEX {table}_at ON {table} (at)",
    "tags": "CREATE INDEX {table}_tags ON {table} USING gin (tags)",
    "place": "CREATE INDEX {table}_place ON {table} USING gist (place)",
    "brin": "CREATE INDEX {table}_brin ON {table} USING brin (at)",
}

COLUMNS = "id bigint NOT NULL, user_id int, code text, at timestamptz, amount int, note text"
ROWS = """
    SELECT g, abs(hashint8(g)::bigint) % {users}, left(md5(g::text), 16),
        timestamptz '2020-01-01Z' + g * interval '7 s', g % 1000, 'note ' || g % 97{more}
    FROM generate_series(1, {rows}) g
"""
MORE = {
    "tags": (", tags int[]", ", array[g % 4999, abs(hashint8(g * 3)::bigint) % 4999, g % 31]"),
    "place": (", place point", ", point(abs(hashint8(g)::bigint) % 100000, abs(hashint8(g * 7)::bigint) % 100000)"),
}


def rows(table: Table, scale: float) -> int:
    return max(1000, int(table.millions * 1_000_000 * scale))


def phases(table: Table, scale: float) -> list[list[str]]:
    """The SQL that makes *table*. No table begins a phase before all have ended the one before it.

    Otherwise one table's transaction would keep the dead rows of another, and a vacuum would leave them.
    """
    count = rows(table, scale)
    kept = not (table.cleaned or table.deleted or table.updated)
    damage = []
    if table.deleted:
        damage.append(f"DELETE FROM {table.name} WHERE {table.deleted.format(rows=count)}")
    if table.updated:
        damage.append(f"UPDATE {table.name} SET amount = amount + 1 WHERE {table.updated}")
    again = bool(table.cleaned and table.deleted)
    return [
        [*_creation(table, count), *_indexes(table, table.indexes)],
        [] if kept else [f"VACUUM {table.name}"],
        [] if kept else [f"ANALYZE {table.name}"],
        damage,
        [f"VACUUM {table.name}"] if again else [],
        [f"ANALYZE {table.name}"] if again else [],
        _indexes(table, table.later),
    ]


def _creation(table: Table, count: int) -> Iterator[str]:
    extras = [MORE[kind] for kind in f"{table.indexes} {table.later}".split() if kind in MORE]
    columns = COLUMNS + "".join(extra[0] for extra in extras)
    if table.partitions:
        yield f"CREATE TABLE {table.name} ({columns}) PARTITION BY RANGE (id)"
        step = count // table.partitions + 1
        for number in range(table.partitions):
            yield (
                f"CREATE TABLE {table.name}_{number} PARTITION OF {table.name} "
                f"FOR VALUES FROM ({number * step}) TO ({(number + 1) * step})"
            )
    else:
        yield f"CREATE TABLE {table.name} ({columns}) {table.storage}"
    content = ROWS.format(rows=count, users=max(10, count // 40), more="".join(extra[1] for extra in extras))
    yield f"INSERT INTO {table.name} {content}"


def _indexes(table: Table, kinds: str) -> list[str]:
    return [INDEXES[kind].format(table=table.name) for kind in kinds.split()]


def make_data(server: PostgresServer, scale: float, workers: int = 3) -> None:
    """Fill the empty cluster; the largest tables first, several at a time."""
    for database in DATABASES:
        server.sql(f"CREATE DATABASE {database}")
    tables = sorted(TABLES, key=lambda table: -table.millions)
    with ThreadPoolExecutor(workers) as pool:
        for phase in zip(*(phases(table, scale) for table in tables), strict=True):
            list(pool.map(lambda each: _execute(server, each[0].database, each[1]), zip(tables, phase, strict=True)))
    with server.connect("learning") as connection:
        _make_accounts(connection)
    for database in DATABASES:
        for extension in ("pgstattuple", "pg_visibility", "pageinspect", "amcheck", "pg_stat_statements"):
            server.sql(f"CREATE EXTENSION {extension}", database)
    # Catalogues too, so that what is due afterwards is what was meant to be.
    for database in (*DATABASES, "postgres", "template1"):
        _execute(server, database, [f"VACUUM (ANALYZE) {name}" for name in _catalogues(server, database)])
    server.sql("CHECKPOINT")


def _catalogues(server: PostgresServer, database: str) -> list[str]:
    found = server.sql(
        "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'pg_catalog'::regnamespace",
        database,
    )
    return [name for (name,) in found]


def _execute(server: PostgresServer, database: str, statements: list[str]) -> None:
    if statements:
        with server.connect(database) as connection:
            for statement in statements:
                connection.execute(statement.encode())


def _make_accounts(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    connection.execute("CREATE TABLE accounts (id int PRIMARY KEY, balance bigint, note text) WITH (fillfactor = 50)")
    connection.execute(f"INSERT INTO accounts SELECT g, 0, '' FROM generate_series(1, {ACCOUNTS}) g".encode())
    connection.execute("VACUUM (ANALYZE) accounts")
