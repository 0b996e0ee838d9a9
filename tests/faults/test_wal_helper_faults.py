"""The helper that keeps WAL segments: killed, repeated, misled or out of space, it never leaves a wrong segment."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.wal import CLUSTER, HELPER, SEGMENT_BYTES, helper, segment_content

NAME = "000000010000000000000007"
COMPRESSIONS = {"none": "", "gzip": ".gz", "lz4": ".lz4", "zstd": ".zst"}
KILLS = 30


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    directory = tmp_path / CLUSTER
    directory.mkdir(0o700)
    return directory


@pytest.fixture
def segment(tmp_path: Path) -> Path:
    path = tmp_path / NAME
    path.write_bytes(segment_content(NAME))
    return path


def archived(archive: Path) -> list[str]:
    return sorted(str(path.relative_to(archive)) for path in archive.rglob("*") if path.is_file())


def fetched(archive: Path, tmp_path: Path, name: str = NAME) -> bytes:
    out = tmp_path / "out"
    done = helper("fetch", CLUSTER, name, out, archive)
    assert done.returncode == 0, done.stderr
    return out.read_bytes()


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_segment_is_kept_private_and_comes_back_as_it_was(
    archive: Path, segment: Path, tmp_path: Path, compression: str
) -> None:
    done = helper("archive", archive, compression, segment, NAME)
    assert (done.returncode, done.stderr) == (0, "")
    assert archived(archive) == [f"00000001/{NAME}{COMPRESSIONS[compression]}"]
    assert all(path.stat().st_mode & 0o077 == 0 for path in archive.rglob("*"))
    assert fetched(archive, tmp_path) == segment.read_bytes()


@pytest.mark.parametrize("before", COMPRESSIONS)
def test_the_same_again_succeeds_and_another_content_is_refused_whatever_the_compression(
    archive: Path, segment: Path, tmp_path: Path, before: str
) -> None:
    assert helper("archive", archive, before, segment, NAME).returncode == 0
    assert helper("archive", archive, "gzip", segment, NAME).returncode == 0
    files = archived(archive)
    segment.write_bytes(segment_content(NAME, seed=2))
    done = helper("archive", archive, "gzip", segment, NAME)
    assert done.returncode == 1
    assert "another content under the name" in done.stderr
    assert archived(archive) == files
    assert fetched(archive, tmp_path) == segment_content(NAME)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (segment_content(NAME, cluster="42"), "of the cluster 42"),
        (segment_content("000000010000000000000008"), "content of another segment"),
        (segment_content("000000020000000000000007"), "content of another segment"),
        (segment_content(NAME)[:-8192], "bytes instead of"),
        (segment_content(NAME)[:20], "20 bytes only"),
        (b"", "0 bytes only"),
        (bytes(SEGMENT_BYTES), "does not begin like a WAL segment"),
    ],
)
def test_what_is_not_this_segment_of_this_cluster_is_not_archived(
    archive: Path, segment: Path, content: bytes, words: str
) -> None:
    segment.write_bytes(content)
    done = helper("archive", archive, "none", segment, NAME)
    assert done.returncode == 1
    assert words in done.stderr
    assert archived(archive) == []


def test_histories_and_labels_are_kept_as_they_are_and_other_names_are_refused(archive: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_text("1\t0/3000000\tno recovery target specified\n")
    for name in ("00000002.history", f"{NAME}.00000028.backup"):
        assert helper("archive", archive, "gzip", source, name).returncode == 0
        assert (archive / name[:8] / name).read_text() == source.read_text()
    for name in ("../x", "postgresql.conf", "00000002.history.gz"):
        done = helper("archive", archive, "gzip", source, name)
        assert done.returncode == 1
        assert "not a name" in done.stderr
    assert len(archived(archive)) == 2


@pytest.mark.parametrize("where", ["segment", "timeline", "incoming", "waiting", "archive", "archived"])
def test_a_link_in_any_place_is_refused_and_not_written_through(
    archive: Path, segment: Path, tmp_path: Path, where: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    victim = elsewhere / "victim"
    victim.write_text("precious")
    path, target = {
        "segment": (tmp_path / "link", segment),
        "timeline": (archive / "00000001", elsewhere),
        "incoming": (archive / "incoming", elsewhere),
        "waiting": (archive / "incoming" / NAME, victim),
        "archived": (archive / "00000001" / NAME, victim),
        "archive": (tmp_path / "7", archive),
    }[where]
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(target)
    source, directory = (path if where == "segment" else segment), (path if where == "archive" else archive)
    done = helper("archive", directory, "none", source, NAME)
    assert done.returncode == 1
    assert done.stderr.startswith("wellkept: ")
    assert victim.read_text() == "precious"
    assert os.listdir(elsewhere) == ["victim"]


def test_a_directory_that_others_can_write_to_is_refused(archive: Path, segment: Path) -> None:
    archive.chmod(0o777)
    done = helper("archive", archive, "none", segment, NAME)
    assert done.returncode == 1
    assert "nobody else to write" in done.stderr


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_on_a_full_disk_nothing_appears_and_the_next_try_succeeds(
    archive: Path, segment: Path, compression: str
) -> None:
    def no_room() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    done = helper("archive", archive, compression, segment, NAME, preexec_fn=no_room)
    assert done.returncode == 1
    assert done.stderr
    assert not list((archive / "00000001").iterdir())
    assert helper("archive", archive, compression, segment, NAME).returncode == 0
    assert archived(archive) == [f"00000001/{NAME}{COMPRESSIONS[compression]}"]


def seconds_to_archive(archive: Path, compression: str, segment: Path) -> float:
    began = time.monotonic()
    helper("archive", archive, compression, segment, segment.name)
    return time.monotonic() - began


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_killed_at_any_moment_the_segment_is_there_whole_or_not_at_all(
    archive: Path, tmp_path: Path, compression: str
) -> None:
    names = [f"00000001000000000000{number:04X}" for number in range(1, KILLS // 3 + 1)]
    for name in names:
        (tmp_path / name).write_bytes(segment_content(name))
    typical = min(seconds_to_archive(archive, compression, tmp_path / name) for name in names[:3])
    chance = random.Random(7)
    killed = 0
    for number, name in enumerate(names):
        command = ["/usr/bin/env", "python3", "-I", "-S", str(HELPER), "archive", str(archive), compression]
        process = subprocess.Popen([*command, str(tmp_path / name), name], stderr=subprocess.DEVNULL)
        time.sleep((number + chance.random() - 0.5) / len(names) * typical if number else 0)
        process.kill()
        killed += process.wait() != 0
        path = archive / "00000001" / (name + COMPRESSIONS[compression])
        if path.exists():
            assert fetched(archive, tmp_path, name) == (tmp_path / name).read_bytes()
        # PostgreSQL tries again.
        assert helper("archive", archive, compression, tmp_path / name, name).returncode == 0
        assert fetched(archive, tmp_path, name) == (tmp_path / name).read_bytes()
    assert killed, "no try was killed before it had ended"
    assert archived(archive) == [f"00000001/{name}{COMPRESSIONS[compression]}" for name in names]


def test_at_one_time_one_content_wins_and_only_its_senders_are_told_success(archive: Path, tmp_path: Path) -> None:
    sources = [tmp_path / str(number) for number in range(8)]
    for number, source in enumerate(sources):
        source.write_bytes(segment_content(NAME, seed=number % 2))
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda source: helper("archive", archive, "gzip", source, NAME), sources))
    kept = fetched(archive, tmp_path)
    for number, one in enumerate(done):
        assert (one.returncode == 0) == (kept == segment_content(NAME, seed=number % 2)), one.stderr
    assert archived(archive) == [f"00000001/{NAME}.gz"]


def test_fetching_what_is_not_there_ends_like_the_end_of_wal_and_what_is_damaged_stops_recovery(
    archive: Path, segment: Path, tmp_path: Path
) -> None:
    assert helper("fetch", CLUSTER, NAME, tmp_path / "out", archive).returncode == 1
    assert helper("archive", archive, "gzip", segment, NAME).returncode == 0
    kept = archive / "00000001" / f"{NAME}.gz"
    for damage in (kept.read_bytes()[:-1000], b"x" + kept.read_bytes()[1:], b""):
        kept.write_bytes(damage)
        done = helper("fetch", CLUSTER, NAME, tmp_path / "out", archive)
        assert done.returncode == 126
        assert "cannot be decompressed" in done.stderr
    other = helper("fetch", "99", NAME, tmp_path / "out", tmp_path)
    assert other.returncode == 126
    assert "not of 99" in other.stderr


def test_a_damaged_segment_is_passed_over_where_another_place_has_a_sound_one(
    archive: Path, segment: Path, tmp_path: Path
) -> None:
    (archive / "00000001").mkdir()
    (archive / "00000001" / NAME).write_bytes(segment.read_bytes()[:5000])
    done = helper("fetch", CLUSTER, NAME, tmp_path / "out", archive, tmp_path)
    assert done.returncode == 0
    assert (tmp_path / "out").read_bytes() == segment.read_bytes()


def test_a_program_that_is_not_installed_is_named(archive: Path, segment: Path) -> None:
    environment = {**os.environ, "PATH": ""}
    command = [Path("/usr/bin/python3"), "-I", "-S", HELPER, "archive", archive, "zstd", segment, NAME]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "zstd: No such file" in done.stderr
    assert "install it" in done.stderr
