"""How a backup describes itself, and what the repository makes of what it finds."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.repository import (
    LABEL,
    Repository,
    format_time,
    new_label,
    parse_metadata,
    parse_time,
    serialise_metadata,
    write_metadata,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MaintenanceError

METADATA: dict[str, Any] = {"format": 1, "label": "20261121T093000Z-full-1a2b", "bytes": 5, "type": "full", "chain": []}


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository(str(tmp_path / "repository"), "main")
    made.prepare()
    return made


def put(repository: Repository, label: str) -> None:
    directory = Path(repository.directory, label)
    directory.mkdir()
    write_metadata(str(directory), {**METADATA, "label": label})


def test_every_single_flipped_bit_of_a_description_is_found() -> None:
    raw = serialise_metadata(METADATA)
    assert parse_metadata(raw)["bytes"] == 5
    for position in range(len(raw)):
        for bit in range(8):
            damaged = bytearray(raw)
            damaged[position] ^= 1 << bit
            with pytest.raises(ValueError, match="not"):
                parse_metadata(bytes(damaged))


def test_a_description_of_another_format_is_not_guessed_at() -> None:
    with pytest.raises(ValueError, match="format 2"):
        parse_metadata(serialise_metadata({**METADATA, "format": 2}))


def test_labels_sort_by_time_and_say_the_type() -> None:
    label = new_label("incremental", datetime(2026, 11, 21, 9, 30, tzinfo=UTC))
    assert label.startswith("20261121T093000Z-incr-")
    assert LABEL.fullmatch(label)


def test_times_survive_being_written() -> None:
    moment = datetime(2026, 11, 21, 9, 30, 1, 234000, tzinfo=UTC)
    assert parse_time(format_time(moment)) == moment


@pytest.mark.parametrize("cluster", ["", "..", ".hidden", "a/b", "a\n", "x" * 64])
def test_names_of_clusters_that_could_lead_elsewhere_are_refused(cluster: str) -> None:
    with pytest.raises(MaintenanceError, match="name the cluster"):
        Repository("/tmp", cluster)


def test_backups_are_told_from_leftovers_and_damage(repository: Repository) -> None:
    put(repository, "20261121T093000Z-full-1a2b")
    Path(repository.directory, "20261122T093000Z-full-1a2b").mkdir()
    Path(repository.directory, ".partial-20261123T093000Z-full-1a2b").mkdir()
    Path(repository.directory, ".expired-20261120T093000Z-full-1a2b").mkdir()
    Path(repository.directory, "something else").mkdir()
    assert [backup.label for backup in repository.backups()] == ["20261121T093000Z-full-1a2b"]
    assert [entry.label for entry in repository.damaged()] == ["20261122T093000Z-full-1a2b"]
    assert len(repository.leftovers()) == 2


def test_a_backup_in_the_making_is_no_leftover_and_appears_when_it_is_complete(repository: Repository) -> None:
    label = "20261121T093000Z-full-1a2b"
    with repository.new(label, {}) as directory:
        write_metadata(directory, METADATA)
        assert repository.leftovers() == []
        assert repository.backups() == []
    assert [backup.label for backup in repository.backups()] == [label]
    assert not Path(repository.directory, label, "lock").exists()


def test_a_backup_that_fails_leaves_nothing(repository: Repository) -> None:
    with pytest.raises(RuntimeError), repository.new("20261121T093000Z-full-1a2b", {}) as directory:
        Path(directory, "some").mkdir()
        raise RuntimeError
    assert [path.name for path in Path(repository.directory).iterdir()] == []


def test_a_proof_counts_only_for_exactly_the_backup_that_was_proven(repository: Repository) -> None:
    label = "20261121T093000Z-full-1a2b"
    put(repository, label)
    repository.write_proof(repository.backup(label), {"tables": 3})
    assert repository.proven() == [label]
    write_metadata(str(Path(repository.directory, label)), {**METADATA, "bytes": 6})
    assert repository.proven() == []


def test_a_repository_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(MaintenanceError, match="use the backup repository"):
        Repository(str(tmp_path / "link"), "main").prepare()
