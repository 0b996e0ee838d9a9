"""How healthy the cluster is, asked in one and the same way whoever did the maintenance."""

from __future__ import annotations

from typing import NamedTuple

from database_cluster import BenchCluster
from database_data import DATABASES


class Health(NamedTuple):
    # The indexes of that size whose bloat is above the limit, with their percentage.
    bloated: dict[str, float]
    index_bytes: int
    # Tables of which the server's own autovacuum would say that they are due, with the reason.
    due: dict[str, str]
    dead_rows: int
    invalid: list[str]

    @property
    def sound(self) -> bool:
        return not (self.bloated or self.due or self.invalid)


# The documented formula of autovacuum, with each table's own settings.
DUE = """
    WITH setting AS (
        SELECT c.oid, c.reltuples, s.n_dead_tup, s.n_ins_since_vacuum, s.n_mod_since_analyze,
            age(c.relfrozenxid) AS age, c.relnamespace <> 'pg_catalog'::regnamespace AS mine,
            coalesce((SELECT option_value FROM pg_options_to_table(c.reloptions)
                WHERE option_name = 'autovacuum_vacuum_scale_factor')::float,
                current_setting('autovacuum_vacuum_scale_factor')::float) AS dead_factor
        FROM pg_class c JOIN pg_stat_all_tables s ON s.relid = c.oid WHERE c.relkind IN ('r', 'm')
    )
    SELECT oid::regclass::text, concat_ws(', ',
        CASE WHEN n_dead_tup > current_setting('autovacuum_vacuum_threshold')::float
            + dead_factor * greatest(reltuples, 0) THEN n_dead_tup || ' dead' END,
        CASE WHEN n_ins_since_vacuum > current_setting('autovacuum_vacuum_insert_threshold')::float
            + current_setting('autovacuum_vacuum_insert_scale_factor')::float * greatest(reltuples, 0)
            THEN n_ins_since_vacuum || ' inserted' END,
        CASE WHEN n_mod_since_analyze > current_setting('autovacuum_analyze_threshold')::float
            + current_setting('autovacuum_analyze_scale_factor')::float * greatest(reltuples, 0)
            THEN n_mod_since_analyze || ' modified' END,
        CASE WHEN age > current_setting('autovacuum_freeze_max_age')::float THEN 'age ' || age END)
    FROM setting WHERE mine
"""
# Indexes of catalogs are left out: nobody can rebuild them while others use them.
BTREES = """
    SELECT c.oid::regclass::text,
        100 - leaf_pages * avg_leaf_density / nullif(0.9 * (leaf_pages + empty_pages + deleted_pages), 0)
    FROM pg_class c JOIN pg_am a ON a.oid = c.relam, LATERAL pgstatindex(c.oid::regclass)
    WHERE a.amname = 'btree' AND c.relkind = 'i' AND c.relpersistence = 'p'
        AND c.relnamespace <> 'pg_catalog'::regnamespace AND pg_relation_size(c.oid) >= {least}
"""
INVALID = "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT (indisvalid AND indisready AND indislive)"
DEAD = """
    SELECT coalesce(sum(dead_tuple_count), 0)::bigint FROM pg_class c, LATERAL pgstattuple(c.oid::regclass)
    WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace
"""


def examine(cluster: BenchCluster, least: int, limit: float, *, indexes: bool, tables: bool) -> Health:
    """Indexes of at least *least* bytes and more than *limit* bloat; either half can be left out for time's sake."""
    sizes = cluster.index_sizes()
    fresh = cluster.facts["fresh"]
    bloated: dict[str, float] = {}
    due: dict[str, str] = {}
    dead = 0
    invalid = []
    for database in DATABASES:
        invalid += [f"{database}.{name}" for (name,) in cluster.server.sql(INVALID, database)]
        if indexes:
            found = cluster.server.sql(BTREES.format(least=least), database)
            bloated |= {f"{database}.{name}": round(float(share or 0), 1) for name, share in found}
        if tables:
            due |= {f"{database}.{name}": reason for name, reason in cluster.server.sql(DUE, database) if reason}
            dead += cluster.server.sql(DEAD, database)[0][0]
    if indexes:
        # By its size when it is made anew, too: for GiST and GIN, which pgstatindex does not know.
        for name, size in sizes.items():
            if size >= least and name in fresh:
                bloated[name] = max(bloated.get(name, 0.0), round(100 * (1 - fresh[name] / size), 1))
    return Health(
        {name: share for name, share in bloated.items() if share > 100 * limit},
        sum(sizes.values()),
        due,
        int(dead),
        invalid,
    )
