"""An index as the catalogs would describe it, for tests of what is made of that."""

from __future__ import annotations

from typing import Any

from ansible_collections.wellkept.maintenance.plugins.module_utils.bloat.model import IndexFacts


def facts(**different: Any) -> IndexFacts:
    """A healthy btree of 100 pages, but for what is *different*."""
    usual: dict[str, Any] = {
        "database": "shop",
        "database_oid": 16384,
        "schema": "public",
        "name": "order_key",
        "oid": 17000,
        "table_schema": "public",
        "table": "order",
        "table_oid": 16900,
        "table_bytes": 8192 * 1000,
        "access_method": "btree",
        "size_bytes": 8192 * 100,
        "fillfactor": 90,
        "tablespace": "pg_default",
        "is_unique": False,
        "is_primary": False,
        "is_constraint": False,
        "has_expressions": False,
        "has_predicate": False,
        "is_valid": True,
        "is_ready": True,
        "is_toast": False,
        "is_catalog": False,
        "is_unlogged": False,
        "definition": 'CREATE INDEX order_key ON public."order" USING btree (key)',
        "tuples": 10000.0,
        "pages": 100,
        "table_tuples": 10000.0,
        "block_size": 8192,
        "being_built": False,
        "locked": False,
        "state": "17000 1 2 3",
    }
    return IndexFacts(**{**usual, **different})
