"""Point-in-time recovery: what is restored is exactly what was committed up to the target."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import timedelta

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.wal.positions import format_lsn
from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MaintenanceError
from support.pitr import SETTINGS, Committed, PitrSite
from support.postgresql import available_majors, bin_dir_of, postgres_server, server_id

RANDOM_TARGETS = 50
IN_EVERY_RUN = 8


@pytest.fixture(scope="module", params=available_majors(), ids=server_id)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PitrSite]:
    with postgres_server(SETTINGS, bin_dir_of(request.param)) as server:
        site = PitrSite(server, tmp_path_factory.mktemp("pitr"))
        server.sql("CREATE TABLE log (xid bigint, filling text)")
        site.back_up()
        site.write(120)
        site.back_up()  # a marker in the midst
        site.write(180)
        site.back_up()
        yield site


@pytest.fixture(scope="module")
def committed(site: PitrSite) -> list[Committed]:
    found = site.committed()
    assert len(found) == 300
    return found


def targets(site: PitrSite, committed: list[Committed]) -> list[tuple[str, set[int]]]:
    """Random targets of all kinds, each with the transactions that must be there."""
    chance = random.Random(20261121)
    found = []
    for number in range(RANDOM_TARGETS):
        kind = ("time", "lsn", "before_xid", "name")[number % 4]
        one = chance.choice(committed[:-1])
        if kind == "time":
            moment = one.time + timedelta(microseconds=chance.choice((-1, 0, 1)))
            expected = {c.xid for c in committed if c.time <= moment}
            text = f"time:{moment.isoformat()}"
        elif kind == "lsn":
            position = one.lsn + chance.choice((0, 1, 8, 34))
            expected = {c.xid for c in committed if c.lsn < position}
            text = f"lsn:{format_lsn(position)}"
        elif kind == "before_xid":
            expected = {c.xid for c in committed if c.lsn < one.lsn}
            text = f"before_xid:{one.xid}"
        else:
            name = chance.choice(sorted(site.points))
            expected = {c.xid for c in committed if c.lsn < site.points[name]}
            text = f"name:{name}"
        found.append((text, expected))
    return found


def assert_exact(site: PitrSite, committed: list[Committed], numbers: range) -> None:
    for text, expected in targets(site, committed)[numbers.start : numbers.stop]:
        restored = site.restore(text)
        assert not restored.part.failures(), (text, restored.part.failures())
        assert restored.rows == expected, (text, len(restored.rows), len(expected))
        assert restored.timeline == "2"


def test_random_targets_give_exactly_the_commits_up_to_them(site: PitrSite, committed: list[Committed]) -> None:
    assert_exact(site, committed, range(IN_EVERY_RUN))


@pytest.mark.long
def test_many_random_targets_give_exactly_the_commits_up_to_them(site: PitrSite, committed: list[Committed]) -> None:
    assert_exact(site, committed, range(IN_EVERY_RUN, RANDOM_TARGETS))


def test_newest_gives_all_that_was_committed_and_says_how_old_it_is(site: PitrSite, committed: list[Committed]) -> None:
    restored = site.restore("newest")
    assert not restored.part.failures()
    assert restored.rows == {c.xid for c in committed}
    markers = next(c for c in restored.part.checks if c["name"] == "marker rows at the target")
    assert markers["expected"].startswith("4 rows")


def test_a_time_after_the_newest_commit_is_refused_before_anything_is_written(site: PitrSite) -> None:
    with pytest.raises(MaintenanceError) as refused:
        site.restore("time:2099-01-01T00:00:00Z")
    assert "newest commit that can be reached is of" in refused.value.observed
    assert "newest" in refused.value.advice


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("time:2001-01-01T00:00:00Z", "it ends at"), ("lsn:0/1000000", "it ends at"), ("before_xid:3", "is not in"),
        ("name:never", "is not in the WAL"), ("lsn:FFF/0", "goes on without a gap until"),
    ],
)  # fmt: skip
def test_a_target_outside_of_the_wal_is_refused_with_the_reason(site: PitrSite, text: str, words: str) -> None:
    with pytest.raises(MaintenanceError, match="restore to") as refused:
        site.restore(text)
    assert words in refused.value.observed
