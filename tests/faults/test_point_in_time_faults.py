"""A restore beyond the backup with WAL that is missing, damaged or another's: it fails, and says what to do."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.wal import archive as wal_archive
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.wal.archive import Segment
from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MaintenanceError
from support.modules import checks_by_name, run_module
from support.pitr import SETTINGS, PitrSite
from support.postgresql import UNPRIVILEGED, embedded_bin_dir, postgres_server


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PitrSite]:
    with postgres_server({**SETTINGS, "allow_in_place_tablespaces": "on"}) as server:
        site = PitrSite(server, tmp_path_factory.mktemp("pitr"))
        server.sql("CREATE TABLESPACE inside LOCATION ''")
        server.sql("CREATE TABLE course TABLESPACE inside AS SELECT g AS id FROM generate_series(1, 100) g")
        server.sql("CREATE TABLE log (xid bigint, filling text)")
        site.back_up()
        for _number in range(3):
            site.write(30)
            site.back_up()
        yield site


@pytest.fixture
def later(site: PitrSite) -> Iterator[list[Segment]]:
    """The segments that only the archive has; afterwards all of it is as it was."""
    (backup,) = site.backups()
    kept = site.directory / "kept"
    shutil.copytree(site.wal, kept)
    owner = site.wal.stat()
    beside = {path.name for path in Path(backup.path("wal")).iterdir()}
    first = wal_archive.needed([(1, None)], 0, 1, 16 << 20)
    yield [s for s in wal_archive.segments(str(site.wal)) if s.name not in beside and s.name > max(beside | set(first))]
    shutil.rmtree(site.wal)
    shutil.copytree(kept, site.wal)
    shutil.rmtree(kept)
    for path in (site.wal, *site.wal.rglob("*")):
        shutil.chown(path, owner.st_uid, owner.st_gid)


def test_options(site: PitrSite, **others: object) -> dict[str, object]:
    options = site.options(run_as=UNPRIVILEGED, amcheck=False, restore_dump=False, interval="0s", target="newest")
    return {**options, **others}


test_options.__test__ = False  # type: ignore[attr-defined]


def test_the_restore_test_goes_on_to_the_newest_commit_and_measures_each_phase(site: PitrSite) -> None:
    shown = run_module("restore_test", test_options(site, interval="6d"))
    assert not shown["failed"], shown["msg"]
    found = checks_by_name(shown)
    assert {check["status"] for check in found.values()} == {"passed"}
    assert found["marker rows at the target"]["expected"].startswith("5 rows")
    phases = ("fetch", "unpack", "wal_fetch", "replay", "start", "checks")
    assert {f"target_{phase}_seconds" for phase in phases} <= set(shown["metrics"])
    own = sum(shown["metrics"][f"target_{phase}_seconds"]["value"] for phase in ("fetch", "unpack", "replay", "start"))
    assert shown["metrics"]["rto_seconds"]["value"] == pytest.approx(own, abs=0.01)
    again = run_module("restore_test", test_options(site, interval="6d"))
    assert not again["failed"]
    assert not again["changed"]


@pytest.mark.parametrize("where", ["start", "middle", "end"])
def test_a_gap_fails_the_test_wherever_it_is_and_the_backup_stays_proven(
    site: PitrSite, later: list[Segment], where: str
) -> None:
    lost = later[{"start": 0, "middle": len(later) // 2, "end": -1}[where]]
    Path(lost.path).unlink()
    shown = run_module("restore_test", test_options(site))
    assert shown["failed"]
    failed = checks_by_name(shown)["restore to the target newest"]
    assert lost.name in failed["observed"]
    assert "is missing" in failed["observed"]
    assert "put it into the archive" in failed["advice"]
    assert site.repository.proven()


def test_all_wal_missing_is_found_by_the_marker_that_was_sent_through_the_archive(
    site: PitrSite, later: list[Segment]
) -> None:
    for segment in later:
        Path(segment.path).unlink()
    with pytest.raises(MaintenanceError) as refused:
        site.restore("newest")
    assert "the row of 20" in refused.value.observed


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "another's", "the next one's"])
def test_a_segment_that_is_not_as_it_was_stops_the_restore_and_is_named(
    site: PitrSite, later: list[Segment], damage: str
) -> None:
    victim = Path(later[len(later) // 2].path)
    content = victim.read_bytes()
    if damage == "truncated":
        victim.write_bytes(content[:-20])
    elif damage == "flipped":
        # Near the front: a flip within the zeros behind may leave the content as it was, which its checksum shows.
        victim.write_bytes(content[:60] + bytes([content[60] ^ 4]) + content[61:])
    elif damage == "empty":
        victim.write_bytes(b"")
    elif damage == "the next one's":
        shutil.copyfile(later[len(later) // 2 + 1].path, victim)
    else:
        from support.wal import segment_content

        victim.unlink()
        victim.with_suffix("").write_bytes(segment_content(victim.stem, size=16 << 20))
    (last,) = site.server.sql("SELECT max(xid) FROM log")
    with pytest.raises(MaintenanceError) as refused:
        restored = site.restore(f"before_xid:{last[0]}")
        (failure,) = restored.part.failures()
        raise MaintenanceError("restore", expected="", observed=str(failure["observed"]), advice=failure["advice"])
    assert victim.stem in f"{refused.value} {refused.value.what}"
    assert "elsewhere" in refused.value.advice or "in the archive is damaged" in refused.value.advice


def test_a_gap_that_appears_after_the_plan_stops_recovery_with_advice(site: PitrSite, later: list[Segment]) -> None:
    def lose(_directory: Path) -> None:
        Path(later[len(later) // 2].path).unlink()

    (failure,) = site.restore("newest", tamper=lose).part.failures()
    assert "recovery ended before configured recovery target" in failure["observed"]
    assert "WAL up to the target is missing" in failure["advice"]


def test_a_timeline_that_the_backup_does_not_lead_to_is_refused(site: PitrSite, later: list[Segment]) -> None:
    del later
    (site.wal / "00000007").mkdir()
    history = site.wal / "00000007" / "00000007.history"
    history.write_text("1\t0/1000000\tno recovery target specified\n")
    with pytest.raises(MaintenanceError, match="along timeline 7"):
        site.restore("newest", timeline=7)
    # Unasked it is passed over: the newest that the backup does lead to is its own.
    assert not site.restore("newest").part.failures()
    with pytest.raises(MaintenanceError, match="history of timeline 5"):
        site.restore("newest", timeline=5)


def test_a_target_without_an_archive_or_without_meaning_is_refused(site: PitrSite) -> None:
    assert "wal_archive is empty" in run_module("restore_test", test_options(site, wal_archive=""))["msg"]
    for target in ("immediate", "yesterday", "time:2026-01-01", "lsn:x", "before_xid:0", "name:"):
        shown = run_module("restore_test", test_options(site, target=target))
        assert shown["failed"]
        assert "read the option target" in shown["msg"]
    assert embedded_bin_dir().exists()
