"""What counts as a proof of a rotation, and what does not."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from ansible_collections.wellkept.maintenance.plugins.module_utils.activity import ACTIVITY_OPTIONS
from ansible_collections.wellkept.maintenance.plugins.module_utils.logrotate.config import Policy
from ansible_collections.wellkept.maintenance.plugins.module_utils.logrotate.memory import growth_per_day
from ansible_collections.wellkept.maintenance.plugins.module_utils.logrotate.options import OPTIONS
from ansible_collections.wellkept.maintenance.plugins.module_utils.logrotate.proof import rotation_problem, some
from ansible_collections.wellkept.maintenance.plugins.module_utils.logrotate.runner import recovered_dates
from ansible_collections.wellkept.maintenance.plugins.module_utils.logrotate.survey import (
    Archive,
    LogFile,
    fault_of_gzip,
)
from ansible_collections.wellkept.maintenance.plugins.modules import log_rotation

POLICY = Policy("app", ("/l/*.log",), max_bytes=1000)
BEFORE = LogFile(
    "/l/app.log", 10, 1, 5000, 0.0, 0, 1, False, (Archive("/l/app.log.1", 1, False, 9, 1, 4000, 0.0, 0.0),)
)
ROTATED = Archive("/l/app.log.1", 1, False, 10, 1, 5000, 0.0, 100.0)
AFTER = replace(BEFORE, inode=11, size=0, archives=(ROTATED,))


def test_a_new_file_with_the_old_one_beside_it_is_a_rotation() -> None:
    assert rotation_problem(POLICY, BEFORE, AFTER) == ""


@pytest.mark.parametrize(
    ("after", "problem"),
    [
        (None, "no new log"),
        (BEFORE, "still the same file"),
        (replace(AFTER, archives=()), "no rotated file"),
        (replace(AFTER, archives=BEFORE.archives), "not the log that was there before"),
        (replace(AFTER, archives=(replace(ROTATED, inode=9, compressed=True),)), "from an earlier rotation"),
    ],
)
def test_anything_less_is_not(after: LogFile | None, problem: str) -> None:
    assert problem in rotation_problem(POLICY, BEFORE, after)


@pytest.mark.parametrize(
    ("after", "problem"),
    [
        (replace(BEFORE, size=0, archives=(replace(ROTATED, inode=12),)), ""),
        (replace(BEFORE, size=0), "from an earlier rotation"),
        (replace(BEFORE, archives=(replace(ROTATED, inode=12),)), "not truncated"),
        (AFTER, "another file"),
    ],
)
def test_copy_truncate_keeps_the_file_and_leaves_a_new_copy(after: LogFile, problem: str) -> None:
    found = rotation_problem(replace(POLICY, copy_truncate=True), BEFORE, after)
    assert problem in found and bool(problem) == bool(found)


def test_every_damage_to_a_compressed_file_is_found(tmp_path: Path) -> None:
    path = tmp_path / "app.log.1.gz"
    content = b"a line of the log\n" * 300
    sound = gzip.compress(content)
    path.write_bytes(sound)
    assert fault_of_gzip(str(path)) == ("", 5400)
    # The ten bytes of the header hold flags and a time that say nothing of the content; a few padding bits neither.
    for position in range(10, len(sound)):
        path.write_bytes(sound[:position] + bytes([sound[position] ^ 4]) + sound[position + 1 :])
        harmless = not fault_of_gzip(str(path))[0] and gzip.decompress(path.read_bytes()) == content
        assert fault_of_gzip(str(path))[0] or harmless, f"bit flip at {position} not found"
        path.write_bytes(sound[:position])
        assert fault_of_gzip(str(path))[0], f"cut at {position} not found"


def test_dates_are_recovered_from_the_state_then_from_memory_then_from_rotated_files() -> None:
    files = [replace(AFTER, path=path) for path in ("/l/kept", "/l/remembered", "/l/rotated")]
    new = replace(BEFORE, path="/l/new", archives=())
    dates = recovered_dates({"/l/kept": 1.0}, {"/l/kept": 2.0, "/l/remembered": 2.0}, [*files, new])
    assert dates == {"/l/kept": 1.0, "/l/remembered": 2.0, "/l/rotated": 100.0}


def test_growth_counts_what_went_into_the_rotated_file_too() -> None:
    earlier = {"/l/app.log": {"inode": 10, "size": 4000, "at": 0.0}}
    assert growth_per_day([replace(AFTER, size=200)], earlier, now=86400.0) == 1200
    assert growth_per_day([replace(AFTER, archives=())], earlier, now=86400.0) is None
    assert growth_per_day([AFTER], earlier, now=10.0) is None


def test_a_long_list_is_counted_not_shown() -> None:
    assert some(["a", "b\nc", "d"], 2) == "a, b\\nc and 1 more"


def test_the_documentation_states_every_option_and_default() -> None:
    documented = yaml.safe_load(log_rotation.DOCUMENTATION)["options"]
    assert set(documented) == set(OPTIONS) - set(ACTIVITY_OPTIONS)
    pairs = [(OPTIONS[name], documented[name]) for name in OPTIONS]
    policy = OPTIONS["policies"]["options"]
    assert set(policy) == set(documented["policies"]["suboptions"])
    pairs += [(policy[name], documented["policies"]["suboptions"][name]) for name in policy]
    for stated, told in pairs:
        for key in ("type", "elements", "default", "choices"):
            assert stated.get(key) == told.get(key)
