"""Fixtures that several kinds of tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from support.postgresql import PostgresServer, available_majors, bin_dir_of, postgres_server, server_id


@pytest.fixture(autouse=True)
def blocking_stdin() -> None:
    """Undo what an ssh of an earlier test did to the standard input that they share: Ansible would not start."""
    os.set_blocking(0, True)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresServer]:
    """One running cluster for tests that do not harm it; a test that does takes ``postgres_server()`` for itself."""
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="module", params=available_majors(), ids=server_id)
def each_postgresql(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """A running cluster of every version that is installed here, one for each file of tests."""
    with postgres_server(bin_dir=bin_dir_of(request.param)) as server:
        yield server
