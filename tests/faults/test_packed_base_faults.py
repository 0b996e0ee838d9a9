"""Compressed bases when something is wrong with them, or with what compresses them: all of it is found."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.packed import packing
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.packed.checking import ArchivesCheck
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.repository import Backup
from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MaintenanceError, MissingToolError
from support.damage import append, empty, flip, remove, truncate
from support.modules import module_process, run_module
from support.packed import Members, archives, fit_hash, forge, path_with, read_archive, wrapper, write_archive
from support.postgresql import embedded_bin_dir, postgres_server
from support.restore import RestoreSite
from support.waiting import wait_until

FLIPS = 120
SEED = 20261121


@pytest.fixture(scope="module")
def small_parts() -> Iterator[None]:
    """Archives of some megabytes, so that a small base has several."""
    patch = pytest.MonkeyPatch()
    patch.setattr(packing, "PART_BYTES", 6 << 20)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, small_parts: None) -> Iterator[RestoreSite]:
    """A full backup and an incremental one on it, both compressed."""
    with postgres_server() as server:
        site = RestoreSite(server, tmp_path_factory.mktemp("packed"))
        server.sql("CREATE TABLE student AS SELECT g AS id, md5(g::text) AS name FROM generate_series(1, 60000) g")
        full = site.back_up(compression="zstd", jobs=2)
        server.sql("UPDATE student SET name = 'x' WHERE id % 100 = 0")
        site.back_up(full.label, compression="zstd", jobs=2)
        yield site


@pytest.fixture
def harmed(site: RestoreSite, tmp_path: Path) -> Iterator[RestoreSite]:
    """The repository, of which a copy is put back after the test."""
    kept = tmp_path / "kept"
    subprocess.run(["cp", "-a", "--reflink=auto", str(site.root), str(kept)], check=True)
    yield site
    shutil.rmtree(site.root)
    subprocess.run(["cp", "-a", "--reflink=auto", str(kept), str(site.root)], check=True)


def both(site: RestoreSite) -> tuple[Backup, Backup]:
    full, incremental = site.engine.list()
    return full, incremental


def test_there_are_several_archives_and_no_file_of_the_base_beside_them(site: RestoreSite) -> None:
    for backup in both(site):
        names = {path.name for path in Path(backup.path("base")).iterdir()}
        assert names == {"backup_manifest", *(path.name for path in archives(backup))}
    assert len(archives(both(site)[0])) >= 3


def test_every_flipped_bit_is_found(site: RestoreSite) -> None:
    chance = random.Random(SEED)
    places = [(b, Path(b.path(name))) for b in both(site) for name in ("backup.json", "base/backup_manifest")]
    places += [(b, path) for b in both(site) for path in archives(b)]
    missed = []
    for number in range(FLIPS):
        backup, path = places[number % len(places)]
        position, bit = chance.randrange(path.stat().st_size), chance.randrange(8)
        flip(path, position, bit)
        if site.engine.verify(backup.label).sound:
            missed.append((str(path), position, bit))
        flip(path, position, bit)
    assert missed == []
    for _again in range(5):
        assert all(site.engine.verify(backup.label).sound for backup in both(site))


def exchange_for_link(path: Path) -> None:
    path.rename(f"{path.parent.parent}.moved")
    path.symlink_to(f"{path.parent.parent}.moved")


@pytest.mark.parametrize("harm", [remove, truncate, append, empty, exchange_for_link])
def test_an_archive_that_is_gone_cut_grown_or_exchanged_is_seen_without_reading(
    harmed: RestoreSite, harm: Callable[[Path], None]
) -> None:
    for backup in both(harmed):
        path = archives(backup)[0]
        harm(path)
        (problem,) = harmed.engine.verify(backup.label, quick=True).problems
        assert "base/0000.tar.zst" in problem
        with pytest.raises(MaintenanceError):
            harmed.engine.restore(backup.label, str(harmed.root.parent / "never"))
        shutil.rmtree(harmed.root.parent / "never", ignore_errors=True)


@pytest.mark.parametrize("name", ["extra", "PG_VERSION", "0099.tar.zst", "global/pg_control"])
def test_files_that_do_not_belong_there_are_found(harmed: RestoreSite, name: str) -> None:
    backup = both(harmed)[0]
    extra = Path(backup.path("base", name))
    extra.parent.mkdir(exist_ok=True)
    extra.write_text("smuggled")
    assert harmed.engine.verify(backup.label).problems == [f"base/{name} does not belong to the backup"]


def test_archives_that_were_exchanged_are_found(harmed: RestoreSite) -> None:
    full, incremental = both(harmed)
    for one, other in ((archives(full)[0], archives(full)[1]), (archives(full)[0], archives(incremental)[0])):
        kept = one.read_bytes()
        one.write_bytes(other.read_bytes())
        assert not harmed.engine.verify(full.label).sound
        # A forger who makes the hash fit is found by what is in it.
        forged = fit_hash(full, one)
        with pytest.raises(MaintenanceError, match="unpack the base backup"):
            harmed.engine.restore(forged.label, str(harmed.root.parent / "never"))
        shutil.rmtree(harmed.root.parent / "never", ignore_errors=True)
        one.write_bytes(kept)
        fit_hash(full, one)
    assert harmed.engine.verify(full.label).sound


# What pg_verifybackup's own tests do to a base, done to what is in the archives.


def with_an_extra_file(members: Members) -> None:
    member, _content = next(iter(members.values()))
    copy = type(member)("extra_file")
    members["extra_file"] = (copy, b"smuggled")


def with_an_extra_file_of_a_relation(members: Members) -> None:
    member, content = members[a_relation(members)]
    members["base/1/99999"] = (type(member)("base/1/99999"), content)


def without_a_file(members: Members) -> None:
    del members[a_relation(members)]


def with_a_file_that_grew(members: Members) -> None:
    name = a_relation(members)
    members[name] = (members[name][0], members[name][1] + b"\0")


def with_a_file_that_was_cut(members: Members) -> None:
    name = a_relation(members)
    members[name] = (members[name][0], members[name][1][:-1])


def with_an_empty_file(members: Members) -> None:
    name = a_relation(members)
    members[name] = (members[name][0], b"")


def with_another_content(members: Members) -> None:
    name = a_relation(members)
    content = bytearray(members[name][1])
    content[len(content) // 2] ^= 1
    members[name] = (members[name][0], bytes(content))


def with_a_link(members: Members) -> None:
    member, _content = members[a_relation(members)]
    member.type, member.linkname = b"2", "/etc/passwd"
    members[member.name] = (member, b"")


def with_a_way_out(members: Members) -> None:
    member, content = members.pop(a_relation(members))
    members["../way_out"] = (member, content)


def with_files_exchanged(members: Members) -> None:
    first, second = [name for name, (_member, content) in members.items() if len(content) == 8192][:2]
    members[first], members[second] = (members[first][0], members[second][1]), (members[second][0], members[first][1])


def a_relation(members: Members) -> str:
    return next(filter(None, (name if is_relation(name, content) else "" for name, (_m, content) in members.items())))


def is_relation(name: str, content: bytes) -> bool:
    return name.startswith("base/") and len(content) > 8192


MUTATIONS = [
    with_an_extra_file, with_an_extra_file_of_a_relation, without_a_file, with_a_file_that_grew,
    with_a_file_that_was_cut, with_an_empty_file, with_another_content, with_a_link, with_a_way_out,
    with_files_exchanged,
]  # fmt: skip


def problems_of(backup: Backup, scratch: Path) -> list[str]:
    """What the check at the creation of a backup finds, raised or told."""
    check = ArchivesCheck(backup.directory, backup.metadata, str(embedded_bin_dir()), str(scratch), 2)
    try:
        return check.problems()
    except MaintenanceError as error:
        return [str(error)]
    finally:
        check.stop()
        assert not scratch.exists()


@pytest.mark.parametrize("change", MUTATIONS, ids=lambda change: change.__name__)
def test_archives_that_hold_anything_but_what_was_sent_are_refused(
    harmed: RestoreSite, tmp_path: Path, change: Callable[[Members], None]
) -> None:
    full, _incremental = both(harmed)
    assert problems_of(full, tmp_path / "check") == []
    forged = forge(full, next(path for path in archives(full) if has_a_relation(path)), change)
    assert harmed.engine.verify(full.label).sound  # a good forger
    assert problems_of(forged, tmp_path / "check")
    assert not (tmp_path / "way_out").exists()


def has_a_relation(path: Path) -> bool:
    return any(is_relation(name, content) for name, (_member, content) in read_archive(path).items())


def test_a_manifest_that_is_not_the_archives_is_refused(harmed: RestoreSite, tmp_path: Path) -> None:
    full, incremental = both(harmed)
    shutil.copyfile(incremental.path("base/backup_manifest"), full.path("base/backup_manifest"))
    assert problems_of(full, tmp_path / "check")


def test_a_file_in_two_archives_is_refused(harmed: RestoreSite, tmp_path: Path) -> None:
    full, _incremental = both(harmed)
    first, second = archives(full)[:2]
    name, member = next(iter(read_archive(first).items()))
    forged = forge(full, second, lambda members: members.update({name: member}))
    assert problems_of(forged, tmp_path / "check") == ["base: the archives hold a file twice"]


def test_a_link_of_the_size_of_a_file_is_refused(harmed: RestoreSite, tmp_path: Path) -> None:
    full, _incremental = both(harmed)
    empty = ((p, name) for p in archives(full) for name, (_member, content) in read_archive(p).items() if not content)
    path, name = next(empty)

    def change(members: Members) -> None:
        members[name][0].type, members[name][0].linkname = b"2", "/etc/passwd"

    assert "of the type b'2'" in problems_of(forge(full, path, change), tmp_path / "check")[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [(without_a_file, "missing: base/"), (with_a_file_that_grew, "in their sizes"), (with_a_link, "of the type b'2'")],
    ids=["a file less", "a file that grew", "a link"],
)
def test_a_restore_lays_down_all_files_of_the_manifest_or_fails(
    harmed: RestoreSite, tmp_path: Path, change: Callable[[Members], None], words: str
) -> None:
    full, _incremental = both(harmed)
    forged = forge(full, next(path for path in archives(full) if has_a_relation(path)), change)
    with pytest.raises(MaintenanceError, match="unpack the base backup") as refused:
        harmed.engine.restore(forged.label, str(tmp_path / "restored"))
    assert words in str(refused.value)


def test_an_archive_that_is_damaged_behind_its_last_file_is_refused(harmed: RestoreSite, tmp_path: Path) -> None:
    full, _incremental = both(harmed)
    path = archives(full)[0]
    path.write_bytes(path.read_bytes() + b"what zstd cannot read, after all that tar needs")
    with pytest.raises(MaintenanceError, match="unpack the base backup"):
        harmed.engine.restore(fit_hash(full, path).label, str(tmp_path / "restored"))


def test_archives_made_anew_without_a_change_are_as_good(harmed: RestoreSite, tmp_path: Path) -> None:
    full, _incremental = both(harmed)
    path = archives(full)[0]
    write_archive(path, read_archive(path))
    assert problems_of(fit_hash(full, path), tmp_path / "check") == []


# -- programs that go wrong --

LIARS = {
    "flips a bit of what it is given": 'python3 -c "import sys; i = sys.stdin.buffer; o = sys.stdout.buffer\n'
    'b = bytearray(i.read()); b[len(b) // 2] ^= 4; o.write(b)" | $real "$@"',
    "leaves the end away and says nothing": 'head -c 3000000 | $real "$@"',
    "writes nothing and says nothing": "cat >/dev/null",
    "ends with an error": 'head -c 3000000 | $real "$@"; cat >/dev/null; echo "zstd: not today" >&2; exit 3',
    "does all and ends with an error": '$real "$@"; exit 3',
    "stops reading": "exit 4",
    "writes garbage": "cat >/dev/null; head -c 200000 /dev/urandom",
}


@pytest.mark.parametrize("script", LIARS.values(), ids=LIARS.keys())
def test_a_compressor_that_lies_makes_no_backup(
    site: RestoreSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    # Only what compresses: what decompresses is the real one.
    real = 'for word; do [ "$word" = -d ] && exec $real "$@"; done'
    wrapper(tmp_path / "bin", "zstd", f"{real}\n{script}")
    monkeypatch.setenv("PATH", path_with(tmp_path / "bin"))
    before = [backup.label for backup in site.engine.list()]
    with pytest.raises(MaintenanceError):
        site.back_up(compression="zstd", jobs=1)
    assert [backup.label for backup in site.engine.list()] == before
    assert site.repository.leftovers() == []


def test_without_the_program_nothing_is_begun(
    site: RestoreSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full, _incremental = both(site)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingToolError, match="zstd"):
        site.back_up(compression="zstd")
    with pytest.raises(MissingToolError, match="zstd"):
        site.engine.restore(full.label, str(tmp_path / "restored"))
    # To know that it is sound takes no program.
    assert site.engine.verify(full.label).sound
    assert site.repository.leftovers() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small file system")
@pytest.mark.parametrize("what", ["backup", "restore"])
def test_a_disk_that_is_full_ends_it_with_that_reason(site: RestoreSite, tmp_path: Path, what: str) -> None:
    disk = tmp_path / "small"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(disk)], check=False).returncode:
        pytest.skip("this root may not mount")
    try:
        full = both(site)[0]
        with pytest.raises(MaintenanceError) as raised:
            if what == "backup":
                RestoreSite(site.server, disk).back_up(compression="zstd")
            else:
                site.engine.restore(full.label, str(disk / "restored"))
        assert "No space left on device" in str(raised.value)
        assert "ree space" in raised.value.advice
        assert not list(disk.glob("repository/main/.partial-*"))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_killed_while_it_compresses_nothing_lives_on_and_the_next_run_succeeds(
    site: RestoreSite, tmp_path: Path
) -> None:
    marker = tmp_path / "begun"
    wrapper(tmp_path / "bin", "zstd", f'touch {marker}; sleep 120; exec $real "$@"')
    options: dict[str, Any] = {**site.options(), "repository": str(tmp_path / "repository"), "min_free_bytes": "1MiB"}
    options = {name: option for name, option in options.items() if name not in ("run_as",)}
    options |= {"interval": "0", "compression": "zstd"}
    process = module_process("backup", options, env={"PATH": path_with(tmp_path / "bin")})
    wait_until(marker.exists)
    assert processes_with(str(tmp_path / "bin"))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    wait_until(lambda: not processes_with(str(tmp_path / "bin")))
    assert list((tmp_path / "repository" / "main").glob(".partial-*"))
    shown = run_module("backup", options)
    assert not shown["failed"], shown["msg"]
    assert not list((tmp_path / "repository" / "main").glob(".partial-*"))


def processes_with(words: str) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if words in line:
            found.append(line)
    return found
