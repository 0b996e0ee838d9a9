"""Application files by restic: what damages the repository, its key, the sources or a run is found, and told."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.remembered import Budget
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.repository import write_metadata
from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.wellkept.maintenance.plugins.module_utils.result import Part
from support.restic import DAY, ResticSite, changed, checks, flip, statuses


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> ResticSite:
    """One backup in a local repository; tests that harm something take a copy."""
    site = ResticSite(tmp_path_factory.mktemp("restic"))
    site.back_up()
    return site


@pytest.fixture
def site(template: ResticSite) -> Iterator[ResticSite]:
    """The template, with its two repositories put back afterwards."""
    kept, location = template.directory.with_suffix(".kept"), template.location
    subprocess.run(["cp", "-a", str(template.directory), str(kept)], check=True)
    yield template
    shutil.rmtree(template.directory)
    kept.rename(template.directory)
    template.location = location


def problems_of(part: Part, name: str) -> str:
    return str(checks(part)[name]["observed"])


# -- damage in the repository --


def test_a_sound_repository_raises_no_alarm_and_is_not_read_again(site: ResticSite) -> None:
    first, problems = site.verify()
    assert problems == {}
    assert statuses(first) == {"passed"}
    assert first.metrics["restic_read_bytes"]["value"] > 3 << 20
    second, _problems = site.verify()
    assert statuses(second) == {"passed"}
    assert second.metrics["restic_read_bytes"]["value"] == 0


def _only(directory: Path) -> Path:
    return next(path for path in sorted(directory.iterdir()) if path.is_file())


DAMAGE: dict[str, tuple[Callable[[ResticSite], object], str]] = {
    "a flipped bit in a pack of data": (lambda site: flip(site.packs()[0], 1000), "Pack ID does not match"),
    "a flipped bit in a pack of trees": (lambda site: flip(site.packs()[-1], 40), ""),
    "a pack cut short": (lambda site: _cut(site.packs()[0]), ""),
    "a missing pack of data": (lambda site: site.packs()[0].unlink(), "does not exist"),
    "a missing pack of trees": (lambda site: site.packs()[-1].unlink(), "does not exist"),
    "a flipped bit in an index": (lambda site: flip(_only(site.path / "index"), 60), "error loading index"),
    "a missing index": (lambda site: _only(site.path / "index").unlink(), "not found"),
    "a flipped bit in a snapshot": (lambda site: flip(_only(site.path / "snapshots"), 30), ""),
    "a flipped bit in the configuration": (lambda site: flip(site.path / "config", 20), "damaged"),
    "a missing key": (lambda site: _only(site.path / "keys").unlink(), "no key found"),
    "a missing configuration": (lambda site: (site.path / "config").unlink(), "unable to open config file"),
}


def _cut(path: Path) -> None:
    path.chmod(0o600)
    os.truncate(path, path.stat().st_size // 2)


# restic 0.14 tries for minutes to read a pack that is not there.
SLOW = ("a missing pack of trees",)


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.long) if kind in SLOW else kind for kind in DAMAGE]
)
def test_damage_is_found(site: ResticSite, kind: str) -> None:
    harm, words = DAMAGE[kind]
    harm(site)
    part, _problems = site.verify()
    found = checks(part)[f"restic repository {site.location}"]
    assert found["status"] == "failed", found
    assert words in found["observed"], found
    assert str(site.key.read_text().strip()) not in str(part.as_dict())


def test_a_bit_lost_after_it_was_read_is_found_within_the_period(site: ResticSite) -> None:
    within, began = 4 * DAY, 1e9
    part, _problems = site.verify(within=within, now=began)
    assert statuses(part) == {"passed"}
    flip(site.packs()[0], 2000)
    parts, days = set(), 0
    for day in range(1, 6):
        part, _problems = site.verify(within=within, now=began + day * DAY)
        days = day
        parts.add(problems_of(part, f"packs read in {site.location}"))
        if "failed" in statuses(part):
            break
    assert "failed" in statuses(part), parts
    assert days <= 4
    # What holds the files that are lost is said by name.
    evidence = checks(part)[f"restic repository {site.location}"]["evidence"]
    assert evidence["backups"] == [site.repository.backups()[-1].label]


def test_a_run_that_reads_everything_now_finds_it_now(site: ResticSite) -> None:
    site.verify()
    with changed(site.packs()[0], 3000):
        assert "failed" not in statuses(site.verify()[0])
        part, _problems = site.verify(within=0)
        assert "Pack ID does not match" in problems_of(part, f"restic repository {site.location}")
    # Mended, it is believed again only after all of it was read again.
    part, _problems = site.verify()
    assert statuses(part) == {"passed"}
    assert part.metrics["restic_read_bytes"]["value"] > 3 << 20


def test_a_spent_budget_leaves_parts_for_the_next_run_and_says_so(site: ResticSite) -> None:
    within = 3 * DAY
    part, _problems = site.verify(within=within, budget=Budget(size=1))
    assert checks(part)[f"packs read in {site.location}"]["status"] == "warned"
    assert "2 parts are still to be read" in problems_of(part, f"packs read in {site.location}")
    part, _problems = site.verify(within=within)
    assert statuses(part) == {"passed"}


def test_a_new_backup_says_that_it_builds_on_what_was_found_damaged(site: ResticSite) -> None:
    pack = site.packs()[0]
    content = pack.read_bytes()
    flip(pack, 1000)
    site.verify()
    part = Part()
    site.back_up(part)
    assert checks(part)[f"restic repository {site.location}"]["status"] == "failed"
    # Repaired as the advice of the check says, with the restic of Debian 12.
    pack.unlink()
    assert site.restic("rebuild-index").returncode == 0
    backup = site.back_up(Part())
    restored, _place = site.restore(backup)
    assert restored.problems == []
    assert content


def test_a_missing_pack_is_told_by_the_very_next_backup(site: ResticSite) -> None:
    site.packs()[0].unlink()
    part = Part()
    site.back_up(part)
    assert checks(part)["restic snapshot"]["status"] == "failed"
    assert "does not exist" in problems_of(part, "restic snapshot")


def test_a_damaged_file_is_not_restored_as_if_it_were_sound(site: ResticSite) -> None:
    flip(site.packs()[0], 1000)
    restored, _place = site.restore(site.repository.backups()[-1])
    assert any("restic ended with 1" in problem for problem in restored.problems)
    assert any("large.bin" in problem or "is missing" in problem for problem in restored.problems), restored.problems


def test_a_snapshot_that_somebody_forgot_is_missed(site: ResticSite) -> None:
    backup = site.repository.backups()[-1]
    facts = backup.metadata["stores"]["restic"]
    assert site.restic("forget", facts["snapshot"]).returncode == 0
    part, problems = site.verify()
    assert problems == {backup.label: [f"the restic snapshot {facts['snapshot'][:8]} of its files is not there"]}
    assert checks(part)[f"snapshots in {site.location}"]["status"] == "failed"
    restored, _place = site.restore(backup)
    assert any("was not laid down" in problem for problem in restored.problems)
    assert any("restic ended with 1" in problem for problem in restored.problems)


def test_a_pack_that_goes_after_all_was_read_is_missed_by_the_next_run(site: ResticSite) -> None:
    site.verify()
    site.packs()[0].unlink()
    part, _problems = site.verify()
    assert checks(part)[f"restic repository {site.location}"]["status"] == "failed"


def test_swapped_snapshots_are_told(site: ResticSite) -> None:
    (site.uploads / "newer.txt").write_text("of the second backup")
    site.back_up()
    first, second = site.repository.backups()
    for backup, other in ((first, second), (second, first)):
        facts = {**backup.metadata["stores"]["restic"], "snapshot": other.metadata["stores"]["restic"]["snapshot"]}
        write_metadata(backup.directory, {**backup.metadata, "stores": {"restic": facts}})
    _part, problems = site.verify()
    assert sorted(problems) == [first.label, second.label]


def test_a_repository_that_others_can_write_to_is_told(site: ResticSite) -> None:
    site.path.chmod(0o755)  # or there would be no way to what is in it
    (site.path / "data").chmod(0o777)
    part, _problems = site.verify()
    assert checks(part)[f"rights in {site.location}"]["status"] == "warned"


def test_another_repository_in_the_place_of_ours_is_not_taken_for_it(site: ResticSite) -> None:
    shutil.rmtree(site.path)
    assert site.restic("init").returncode == 0
    backup = site.repository.backups()[-1]
    part, problems = site.verify()
    assert "its files are in the restic repository" in problems[backup.label][0]
    assert "failed" in statuses(part)
    with pytest.raises(MaintenanceError, match="which the backup was made in"):
        site.restore(backup)


def test_a_repository_that_vanished_is_not_begun_anew(site: ResticSite) -> None:
    site.path.rename(site.path.with_suffix(".unmounted"))
    with pytest.raises(MaintenanceError) as refused:
        site.back_up()
    assert "Mount what it lies on" in refused.value.advice
    assert not site.path.exists()


def test_a_repository_that_moved_is_found_where_the_options_say(site: ResticSite) -> None:
    site.path.rename(site.directory / "elsewhere")
    site.location = str(site.directory / "elsewhere")
    part, problems = site.verify()
    assert (problems, statuses(part)) == ({}, {"passed"})
    restored, _place = site.restore(site.repository.backups()[-1])
    assert restored.problems == []


# -- the key --

KEYS: dict[str, tuple[Callable[[Path], object], str]] = {
    "wrong": (lambda key: key.write_text("another password\n"), "wrong password or no key found"),
    "missing": (lambda key: key.unlink(), "No such file or directory"),
    "readable by others": (lambda key: key.chmod(0o644), "mode 0644: others can read or change it"),
    "empty": (lambda key: key.write_text(""), "it is empty"),
    "a link": (lambda key: (key.rename(key.with_name("k")), key.symlink_to(key.with_name("k"))), "no plain file"),
}


@pytest.mark.parametrize("kind", KEYS)
def test_without_the_right_key_nothing_is_done_and_the_error_says_what_is_missing(site: ResticSite, kind: str) -> None:
    backup = site.repository.backups()[-1]
    before = {path: path.stat().st_mtime_ns for path in site.path.rglob("*")}
    harm, words = KEYS[kind]
    harm(site.key)
    for attempt in (site.back_up, lambda: site.restore(backup), lambda: site.store().expire(backup.label, None)):
        with pytest.raises(MaintenanceError) as refused:
            attempt()
        assert words in refused.value.observed, refused.value
        assert "restic_key_file" in f"{refused.value.advice} {refused.value.expected}"
    part, _problems = site.verify()
    assert words in problems_of(part, f"restic repository {site.location}")
    assert {path: path.stat().st_mtime_ns for path in site.path.rglob("*")} == before


def test_the_password_is_in_no_command_line_and_no_environment(site: ResticSite, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with wrapped_restic(tmp_path, f'tr "\\0" " " </proc/$$/cmdline >>{log}; env >>{log}'):
        site.back_up()
    said = log.read_text()
    assert "--password-file" in said
    assert site.key.read_text().strip() not in said


# -- the sources --


def test_files_that_change_while_they_are_saved_are_told_and_raise_no_false_alarm(site: ResticSite) -> None:
    stop = threading.Event()

    def work() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            with (site.uploads / "log").open("a") as log:
                log.write(f"line {number}\n")
            (site.uploads / f"temporary-{number}").write_text("there for an instant")
            (site.uploads / f"temporary-{number - 1}").unlink(missing_ok=True)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        part = Part()
        backup = site.back_up(part)
    finally:
        stop.set()
        worker.join()
    found = checks(part)[f"files of {site.uploads}"]
    assert found["status"] == "warned"
    assert "1 changing while they were copied: log" in found["observed"]
    assert checks(part)["restic snapshot"]["status"] == "passed"
    restored, place = site.restore(backup)
    assert restored.problems == []
    assert (place / "log").exists()


def test_a_file_that_changed_only_once_is_saved_again_and_compared(site: ResticSite, tmp_path: Path) -> None:
    mark = tmp_path / "done"
    change = f'case "$*" in *" backup "*) [ -e {mark} ] || {{ touch {mark}; echo later >{site.uploads}/3.txt; }};; esac'
    with wrapped_restic(tmp_path, change):
        part = Part()
        backup = site.back_up(part)
    assert checks(part)[f"files of {site.uploads}"]["status"] == "passed"
    restored, place = site.restore(backup)
    assert restored.problems == []
    assert (place / "3.txt").read_text() == "later\n"
    ours = [one for one in site.snapshots() if f"backup={backup.label}" in one["tags"]]
    assert len(ours) == 1


def test_links_and_the_repository_itself_are_refused_as_sources(site: ResticSite) -> None:
    link = site.directory / "link"
    link.symlink_to(site.uploads)
    with pytest.raises(MaintenanceError, match="which restic would save instead"):
        site.back_up(files=[str(link)])
    with pytest.raises(MaintenanceError, match="do not hold the repository itself"):
        site.back_up(files=[str(site.path.parent)])


def test_files_of_another_host_are_refused_for_restic_reads_them_itself(site: ResticSite) -> None:
    with pytest.raises(
        MaintenanceError, match="Run the backup on the host of the files, or set files_engine to copy"
    ) as told:
        site.back_up(database_host="db1")
    assert told.value.observed == "database_host names another one"


# -- runs that end early, and others at work --


def wrapped_restic(tmp_path: Path, shell: str) -> pytest.MonkeyPatch.context:  # type: ignore[valid-type]
    """A restic in PATH that first does *shell*."""
    from contextlib import contextmanager

    @contextmanager
    def wrapped() -> Iterator[None]:
        genuine = shutil.which("restic")
        program = tmp_path / "bin" / "restic"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\n{shell}\nexec {genuine} "$@"\n')
        program.chmod(0o755)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PATH", str(program.parent), prepend=os.pathsep)
            yield

    return wrapped()
