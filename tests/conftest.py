"""Fixtures that several kinds of tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.postgresql import PostgresServer, postgres_server


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresServer]:
    """One running cluster for tests that do not harm it; a test that does takes ``postgres_server()`` for itself."""
    with postgres_server() as server:
        yield server
