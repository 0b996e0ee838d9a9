"""What is measured of an index is compared with what a real rebuild makes of it, on every server of this host."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.bloat.measure import BloatSettings, IndexBloat
from ansible_collections.wellkept.maintenance.plugins.module_utils.bloat.remembered import Remembered
from ansible_collections.wellkept.maintenance.plugins.module_utils.bloat.tables import measure_tables
from support.bloat import PROGRAMS, measured, quiet_server, release, session
from support.postgresql import PostgresServer

POINTS = 0.03  # how far a measured ratio may be from the truth
SAMPLED_POINTS = 0.05
SAMPLED_ABOVE = 1000 * 1024

# An index of each kind of life, on a table of its own: how it comes to be, and what is then done to its table.
LIVES = {
    "random_delete": ("id", "DELETE FROM {t} WHERE hashint4(id) % 3 <> 0"),
    "range_delete": ("id", "DELETE FROM {t} WHERE id <= 54000"),
    "deduplicated": ("id / 50", "DELETE FROM {t} WHERE hashint4(id) % 3 <> 0"),
    "healthy": ("id", ""),
    "healthy_deduplicated": ("id / 50", ""),
    "hot_updates": ("id", "UPDATE {t} SET note = 'b'; VACUUM {t}; UPDATE {t} SET note = 'c'"),
    "moved_keys": ("id", "UPDATE {t} SET id = id + 60000; VACUUM {t}; UPDATE {t} SET id = id + 60000"),
    "insert_only": ("id", "INSERT INTO {t} SELECT g, 'a' FROM generate_series(60001, 90000) g"),
    "random_inserts": ("md5(id::text)", "INSERT INTO {t} SELECT g, 'a' FROM generate_series(60001, 120000) g"),
    "texts": ("md5(id::text)", "DELETE FROM {t} WHERE id % 2 = 0"),
    "emptied": ("id", "DELETE FROM {t}"),
    "nearly_emptied": ("id", "DELETE FROM {t} WHERE id <> 44444"),
}


@pytest.fixture(scope="module", params=PROGRAMS, ids=release)
def server(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    with quiet_server(request.param) as running:
        for name, (key, _change) in LIVES.items():
            running.sql(
                f"CREATE TABLE {name} (id int, note text) WITH (fillfactor = 50);"
                f"INSERT INTO {name} SELECT g, 'a' FROM generate_series(1, 60000) g;"
                f"CREATE INDEX {name}_key ON {name} (({key}))"
            )
        for name, (_key, change) in LIVES.items():
            for statement in [part for part in change.split(";") if part] + ["VACUUM {t}"]:
                running.sql(statement.format(t=name))
        yield running


@pytest.fixture(scope="module")
def by_pgstatindex(server: PostgresServer) -> dict[str, IndexBloat]:
    return measured(server)


@pytest.fixture(scope="module")
def by_sampling(server: PostgresServer) -> dict[str, IndexBloat]:
    return measured(server, sample_above_bytes=SAMPLED_ABOVE, sample_pages=120)


@pytest.fixture(scope="module")
def sizes(server: PostgresServer, by_pgstatindex: object, by_sampling: object) -> dict[str, tuple[int, int]]:
    """The size of each index before and after a real rebuild."""
    names = [f"{name}_key" for name in LIVES]
    query = "SELECT relname, pg_relation_size(oid) FROM pg_class WHERE relkind = 'i' AND relname LIKE '%\\_key'"
    before = dict(server.sql(query))
    for name in names:
        server.sql(f"REINDEX INDEX {name}")
    after = dict(server.sql(query))
    return {name: (before[name], after[name]) for name in names}


@pytest.mark.parametrize("life", LIVES)
def test_a_measured_btree_has_the_bloat_that_a_rebuild_removes(
    life: str, by_pgstatindex: dict[str, IndexBloat], sizes: dict[str, tuple[int, int]]
) -> None:
    index, (before, after) = by_pgstatindex[f"{life}_key"], sizes[f"{life}_key"]
    assert (index.method, index.confidence, index.size_bytes) == ("pgstatindex", "high", before)
    assert index.bloat_ratio == pytest.approx(1 - after / before, abs=POINTS)
    assert index.predicted_bytes == pytest.approx(after, abs=max(POINTS * before, 8192))
    assert index.wasted_bytes == before - index.predicted_bytes


@pytest.mark.parametrize("life", LIVES)
def test_a_sampled_btree_has_it_too_within_what_it_says_of_itself(
    life: str, by_sampling: dict[str, IndexBloat], sizes: dict[str, tuple[int, int]]
) -> None:
    index, (before, after) = by_sampling[f"{life}_key"], sizes[f"{life}_key"]
    assert index.method == ("sampled" if before > SAMPLED_ABOVE else "pgstatindex")
    assert index.bloat_ratio == pytest.approx(1 - after / before, abs=SAMPLED_POINTS)
    assert 0 <= index.margin < SAMPLED_POINTS


NULLS = {"none_deleted": "", "most_deleted": "DELETE FROM {t} WHERE id % 10 <> 0"}


@pytest.mark.parametrize("change", NULLS)
def test_a_unique_index_of_nulls_is_not_said_to_win_what_its_rebuild_does_not_merge_again(
    server: PostgresServer, change: str
) -> None:
    table = f"nulls_{change}"
    server.sql(
        f"CREATE TABLE {table} (id int, reference int);"
        f"CREATE UNIQUE INDEX {table}_unique ON {table} (reference);"
        f"INSERT INTO {table} SELECT g, CASE WHEN g % 20 = 0 THEN g END FROM generate_series(1, 60000) g;"
    )
    for statement in filter(None, [NULLS[change].format(t=table), f"VACUUM {table}"]):
        server.sql(statement)
    index = measured(server)[f"{table}_unique"]
    server.sql(f"REINDEX INDEX {table}_unique")
    ((after,),) = server.sql(f"SELECT pg_relation_size('{table}_unique')")
    server.sql(f"DROP TABLE {table}")
    assert index.predicted_bytes == pytest.approx(min(after, index.size_bytes), abs=max(POINTS * after, 8192))


# -- other kinds of index, and tables --

KINDS = {
    "points": "gist (point(hashint4(id) % 5000, hashint4(id + 1) % 5000))",
    "boxes": "gist (box(point(hashint4(id) % 5000, id % 777), point(hashint4(id) % 5000 + 3, id % 777 + 3)))",
    "ranges": "gist (int4range(id, id + 10))",
    "words": "gist (to_tsvector('simple', md5(id::text) || ' ' || id % 1000))",
    "inverted": "gin (to_tsvector('simple', md5(id::text) || ' ' || id % 1000))",
    "lists": "gin ((ARRAY[id % 100, id % 7, id]))",
    "hashed": "hash (id)",
}


@pytest.fixture(scope="module")
def kinds(server: PostgresServer) -> Iterator[dict[str, list[tuple[IndexBloat, int]]]]:
    """Each kind of index after two thirds of its rows went: measured without, then with, a baseline of its own; each
    time with the size after a real rebuild."""
    found: dict[str, list[tuple[IndexBloat, int]]] = {name: [] for name in KINDS}
    remembered = Remembered()
    for _time in range(2):
        for name, definition in KINDS.items():
            server.sql(f"DROP TABLE IF EXISTS {name}")
            server.sql(f"CREATE TABLE {name} AS SELECT g AS id FROM generate_series(1, 30000) g")
            server.sql(f"CREATE INDEX {name}_key ON {name} USING {definition}")
            server.sql(f"DELETE FROM {name} WHERE id % 3 <> 0")
            server.sql(f"VACUUM ANALYZE {name}")
        seen = measured(server, remembered)
        for name in KINDS:
            server.sql(f"REINDEX INDEX {name}_key")
        rebuilt = measured(server)
        for name in KINDS:
            found[name].append((seen[f"{name}_key"], rebuilt[f"{name}_key"].size_bytes))
            remembered.learn(rebuilt[f"{name}_key"])
    yield found
    for name in KINDS:
        server.sql(f"DROP TABLE {name}")


@pytest.mark.parametrize("kind", [name for name, key in KINDS.items() if key.startswith("gist")])
def test_a_gist_has_at_least_the_bloat_that_is_stated_and_once_rebuilt_just_that(
    kind: str, kinds: dict[str, list[tuple[IndexBloat, int]]]
) -> None:
    for index, after in kinds[kind]:
        assert (index.method, index.confidence) == ("pgstattuple", "medium")
        assert index.bloat_ratio is not None
        assert 0.15 < index.bloat_ratio <= 1 - after / index.size_bytes + 2 * POINTS
    index, after = kinds[kind][1]
    assert index.bloat_ratio == pytest.approx(1 - after / index.size_bytes, abs=2 * POINTS)


@pytest.mark.parametrize("kind", [name for name, key in KINDS.items() if key.startswith("gin")])
def test_of_a_gin_nothing_is_claimed_until_it_was_seen_compact(
    kind: str, kinds: dict[str, list[tuple[IndexBloat, int]]]
) -> None:
    (first, _size), (index, after) = kinds[kind]
    assert (first.method, first.bloat_ratio, first.confidence) == ("baseline", None, "none")
    assert (index.method, index.confidence) == ("baseline", "medium")
    assert index.bloat_ratio == pytest.approx(1 - after / index.size_bytes, abs=2 * POINTS)


def test_a_hash_index_has_the_bloat_that_a_rebuild_removes(
    kinds: dict[str, list[tuple[IndexBloat, int]]],
) -> None:
    for index, after in kinds["hashed"]:
        assert (index.method, index.confidence) == ("pgstathashindex", "medium")
        assert index.bloat_ratio == pytest.approx(1 - after / index.size_bytes, abs=POINTS)


TABLES = {
    "sparse": ("", "DELETE FROM {t} WHERE id % 3 <> 0"),
    "filled": ("", ""),
    "roomy": ("WITH (fillfactor = 60)", ""),
    "wide": ("", "UPDATE {t} SET note = repeat('w', 2500)"),
    "gone": ("", "DELETE FROM {t} WHERE id > 10"),
}


def test_tables_have_the_bloat_that_a_rewrite_removes(server: PostgresServer) -> None:
    for name, (options, change) in TABLES.items():
        server.sql(
            f"CREATE TABLE {name} (id int, note text) {options}; ALTER TABLE {name} ALTER note SET STORAGE plain"
        )
        server.sql(f"INSERT INTO {name} SELECT g, repeat('n', 100) FROM generate_series(1, 6000) g")
        for statement in (change, "VACUUM {t}"):
            server.sql(statement.format(t=name) or "SELECT")
    with session(server) as connection:
        found = {table.name: table for table in measure_tables(connection, BloatSettings(catalogs=False))}
    for name in TABLES:
        table = found[name]
        server.sql(f"VACUUM FULL {name}")
        after = server.sql(f"SELECT pg_relation_size('{name}')")[0][0]
        assert table.method == "pgstattuple_approx"
        assert table.bloat_ratio == pytest.approx(1 - after / table.size_bytes, abs=SAMPLED_POINTS), name
        server.sql(f"DROP TABLE {name}")
