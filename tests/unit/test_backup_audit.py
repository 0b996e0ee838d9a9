"""What a repository as a whole shows: each check on its own, with a history in which nothing else is wrong."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup import audit
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.access import exposed
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.contents import Look, empty_dumps, missing_wal
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.reading import batch, partial_manifest
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.remembered import Budget
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.repository import (
    Backup,
    Damaged,
    format_time,
)

NOW = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
MIB = 1 << 20


def backup(label: str, age: timedelta, on: Backup | None = None, **more: Any) -> Backup:
    moment = format_time(NOW - age)
    metadata = {
        "type": "incremental" if on else "full",
        "parent": on.label if on else None,
        "chain": [*(on.chain if on else []), label],
        "system_identifier": "7",
        "started": moment,
        "finished": moment,
        "restore_point": {"time": moment},
        "databases": {"shop": {"bytes": 4 * MIB}},
        "application_files": [{"source": "/srv/uploads", "bytes": 2 * MIB}],
        "bytes_by_part": {"base": 40 * MIB},
        **more,
    }
    return Backup(label, f"/repository/{label}", metadata)


def facts(*backups: Backup, **more: Any) -> audit.Facts:
    limits = audit.Limits(25 * HOUR, 8 * DAY)
    default = audit.Facts(list(backups), [], frozenset(), {}, [], [], [], [], limits, NOW)
    return default._replace(**more)


def found(state: audit.Facts) -> dict[str, list[str]]:
    """The names of the checks that do not hold, each with what it found."""
    return {check.name: check.look(state) for check in audit.CHECKS if check.look(state)}


FULL = backup("f", 2 * DAY)
CHAIN = (FULL, backup("i", 1 * DAY, FULL), backup("j", 1 * HOUR, backup("i", 1 * DAY, FULL)))


def test_a_healthy_repository_raises_nothing_and_every_check_says_so_in_words() -> None:
    state = facts(*CHAIN)
    assert found(state) == {}
    assert all(check.fine(state) for check in audit.CHECKS)
    assert len({check.name for check in audit.CHECKS}) == len(audit.CHECKS)
    assert {check.found for check in audit.CHECKS} == {"failed", "warned"}


def test_a_description_that_cannot_be_believed_is_told() -> None:
    assert found(facts(*CHAIN, damaged=[Damaged("x", "it is not JSON any more")])) == {
        "descriptions of backups": ["x: it is not JSON any more"]
    }


@pytest.mark.parametrize(
    ("backups", "words"),
    [
        ((CHAIN[0], CHAIN[2]), "j: it builds on i, which is not there"),
        ((FULL, backup("i", HOUR, FULL, chain=["i"], type="incremental")), "does not lead from a full backup"),
        ((FULL, backup("i", HOUR, FULL, chain=["f", "x"])), "it builds on x, which is not there"),
        ((FULL, backup("i", HOUR, FULL, parent="other")), "contradict each other"),
        ((*CHAIN[:2], backup("j", HOUR, CHAIN[1], chain=["f", "i", "f", "j"])), "contradict each other"),
        ((FULL, backup("i", 3 * DAY, FULL), backup("g", HOUR)), "f, which it builds on, is dated later"),
    ],
)
def test_chains_that_are_not_what_they_were_are_told(backups: tuple[Backup, ...], words: str) -> None:
    problems = found(facts(*backups))
    assert set(problems) == {"chains of backups"}
    assert words in problems["chains of backups"][0]


def test_backups_of_two_clusters_are_told_by_their_identifiers() -> None:
    problems = found(facts(FULL, backup("g", HOUR, system_identifier="8")))
    assert problems == {"backups of one cluster": ["cluster 7: f", "cluster 8: g"]}


def test_an_old_backup_fails_whatever_is_dated_in_the_future_or_damaged() -> None:
    future = backup("z", -DAY)
    problems = found(facts(FULL, backup("g", HOUR), future, unsound=frozenset("g")))
    assert problems["age of the newest backup"] == ["2 d (f)"]
    assert set(problems) == {"age of the newest backup", "dates of backups"}
    assert found(facts(FULL, unsound=frozenset("f"))) == {
        "age of the newest backup": ["there is no backup that can be restored"]
    }


def test_the_age_is_that_of_the_point_restored_to_not_of_the_end_of_the_backup() -> None:
    slow = backup("g", HOUR, restore_point={"time": format_time(NOW - 26 * HOUR)})
    assert found(facts(slow)) == {"age of the newest backup": ["1 d 2 h (g)"]}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"databases": {"shop": {"bytes": MIB}}}, "dump of shop of g: 1.0 MiB, before 4.0 MiB"),
        ({"application_files": [{"source": "/srv/uploads", "bytes": 0}]}, "files of /srv/uploads of g: 0 B"),
        ({"bytes_by_part": {"base": MIB}}, "base of g: 1.0 MiB, before 40.0 MiB"),
    ],
)
def test_a_part_that_is_suddenly_small_is_told(more: dict[str, Any], words: str) -> None:
    (problem,) = found(facts(*CHAIN, backup("g", timedelta(0), **more)))["size of the newest backup"]
    assert problem.startswith(words)


def test_incremental_backups_and_one_large_exception_are_no_reason_to_warn() -> None:
    small = backup("k", timedelta(0), CHAIN[2], bytes_by_part={"base": 1000})
    assert found(facts(*CHAIN, small)) == {}
    large = backup("e", 3 * DAY, databases={"shop": {"bytes": 400 * MIB}})
    assert found(facts(large, *CHAIN)) == {}


def test_leftovers_strangers_and_rights_are_told() -> None:
    state = facts(*CHAIN, leftovers=[".partial-x"], strangers=["notes"], readable=["a"], writable=["b"])
    assert found(state) == {
        "leftovers of killed runs": [".partial-x"],
        "strangers in the repository": ["notes"],
        "others cannot read the backups": ["a"],
        "others cannot write to the backups": ["b"],
    }


@pytest.mark.parametrize(
    ("proven", "words"),
    [(9 * DAY, "the last proof, of f, is 9 d old"), (7 * DAY, ""), (-DAY, "the proof of f is dated in the future")],
)
def test_a_proof_is_asked_for_in_its_time(proven: timedelta, words: str) -> None:
    problems = found(facts(*CHAIN, proofs={"f": NOW - proven}))
    assert problems == ({"proof by a restore test": [words]} if words else {})


def test_there_is_time_for_the_first_proof_and_0_asks_for_none() -> None:
    old = backup("e", 9 * DAY)
    assert found(facts(old, *CHAIN))["proof by a restore test"] == ["none was ever proven, the first is 9 d old"]
    assert found(facts(old, *CHAIN, limits=audit.Limits(25 * HOUR, timedelta(0)))) == {}


def test_rights_count_only_where_there_is_a_way(tmp_path: Path) -> None:
    cluster = tmp_path / "repository" / "main"
    cluster.mkdir(parents=True)
    (cluster / "secret").write_text("x")
    (cluster / "secret").chmod(0o666)
    cluster.chmod(0o755)
    root = cluster.parent
    root.chmod(0o700)
    assert exposed(str(root), str(cluster)) == ([], [])
    root.chmod(0o711)
    assert exposed(str(root), str(cluster)) == ([f"{cluster} (mode 0755)"], [f"{cluster}/secret (mode 0666)"])
    cluster.chmod(0o700)
    assert exposed(str(root), str(cluster)) == ([], [])


def test_a_budget_lets_what_was_begun_end_and_then_nothing_more() -> None:
    assert all(Budget().take(10**12) for _time in range(3))
    by_size = Budget(size=100)
    assert [by_size.take(60) for _time in range(3)] == [True, True, False]
    assert Budget(seconds=1e-9).take(1) is False


def test_a_base_is_read_in_parts_of_about_a_gibibyte_in_order() -> None:
    sizes = {"a": 1 << 29, "b": 1 << 29, "c": 1, "d": 1 << 31, "e": 5}
    assert batch("abcde", sizes) == [["a", "b"], ["c"], ["d"], ["e"]]
    assert batch([], {}) == [[]]


def test_a_partial_manifest_ends_with_its_own_checksum_on_a_line_of_its_own() -> None:
    manifest = {"PostgreSQL-Backup-Manifest-Version": 2, "Files": [1, 2], "WAL-Ranges": [3], "Manifest-Checksum": "x"}
    text = partial_manifest(manifest, [{"Path": "a"}]).decode()
    body, last = text.splitlines()
    assert body.startswith('{"PostgreSQL-Backup-Manifest-Version": 2, "Files": [{"Path": "a"}], "WAL-Ranges": []')
    assert last.startswith('"Manifest-Checksum": "')
    assert last.endswith('"}')
    assert text.endswith("\n")


def described(**more: Any) -> Look:
    metadata = {
        "engine": "core",
        "timeline": 1,
        "start_lsn": "0/1000028",
        "restore_point": {"lsn": "0/2000100"},
        "settings": {"wal_segment_size": 16 * MIB},
        "databases": {},
        **more,
    }
    return Look(Backup("f", "/repository/f", metadata), {}, {}, set(), {}, [])


def test_segments_that_the_description_does_not_name_are_missed() -> None:
    assert [problem.words for problem in missing_wal(described())] == [
        "WAL segment 000000010000000000000001 is missing",
        "WAL segment 000000010000000000000002 is missing",
    ]


def test_a_database_without_a_dump_is_missed() -> None:
    look = described(databases={"shop": {"file": "dump/1.dump"}})
    assert [problem.words for problem in empty_dumps(look)] == ["the backup has no dump of the database shop"]


def test_what_the_newest_backup_lacks_is_told_and_what_older_ones_lacked_is_history() -> None:
    lacking = backup("b", HOUR, lacks={"restic": "its host is down"})
    assert found(facts(backup("a", DAY), lacking)) == {
        "stores in the newest backup": ["b lacks the store restic: its host is down"]
    }
    assert found(facts(backup("a", DAY, lacks={"redis": "it was down"}), backup("b", HOUR))) == {}
