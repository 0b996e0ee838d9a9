"""What is measured of an index is compared with what a real rebuild makes of it, on every server of this host."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.bloat.measure import IndexBloat
from support.bloat import PROGRAMS, measured, quiet_server, release
from support.postgresql import PostgresServer

POINTS = 0.03  # how far a measured ratio may be from the truth
SAMPLED_POINTS = 0.05
SAMPLED_ABOVE = 1024**2

# An index of each kind of life, on a table of its own: how it comes to be, and what is then done to its table.
LIVES = {
    "random_delete": ("id", "DELETE FROM {t} WHERE hashint4(id) % 3 <> 0"),
    "range_delete": ("id", "DELETE FROM {t} WHERE id <= 90000"),
    "deduplicated": ("id / 50", "DELETE FROM {t} WHERE hashint4(id) % 3 <> 0"),
    "healthy": ("id", ""),
    "healthy_deduplicated": ("id / 50", ""),
    "hot_updates": ("id", "UPDATE {t} SET note = 'b'; VACUUM {t}; UPDATE {t} SET note = 'c'"),
    "moved_keys": ("id", "UPDATE {t} SET id = id + 100000; VACUUM {t}; UPDATE {t} SET id = id + 100000"),
    "insert_only": ("id", "INSERT INTO {t} SELECT g, 'a' FROM generate_series(100001, 150000) g"),
    "random_inserts": ("md5(id::text)", "INSERT INTO {t} SELECT g, 'a' FROM generate_series(100001, 200000) g"),
    "texts": ("md5(id::text)", "DELETE FROM {t} WHERE id % 2 = 0"),
    "emptied": ("id", "DELETE FROM {t}"),
    "nearly_emptied": ("id", "DELETE FROM {t} WHERE id <> 77777"),
}


@pytest.fixture(scope="module", params=PROGRAMS, ids=release)
def server(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    with quiet_server(request.param) as running:
        for name, (key, _change) in LIVES.items():
            running.sql(
                f"CREATE TABLE {name} (id int, note text) WITH (fillfactor = 50);"
                f"INSERT INTO {name} SELECT g, 'a' FROM generate_series(1, 100000) g;"
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
    return measured(server, sample_above_bytes=SAMPLED_ABOVE, sample_pages=150)


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
