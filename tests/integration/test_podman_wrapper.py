"""The wrapper of podman changes nothing where nothing is needed, and says what it is called for."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts/hosts"
NOBODY = 65534


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user reaches."""
    with tempfile.TemporaryDirectory(prefix="wellkept-wrapper-", dir="/tmp") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


def test_an_ordinary_user_gets_podman_itself_with_the_same_words(place: Path) -> None:
    wrapper = shutil.copy(SCRIPTS / "bin/podman", (place / "wrapper").mkdir() or place / "wrapper/podman")
    real = place / "real/podman"
    real.parent.mkdir()
    real.write_text('#!/bin/sh\nprintf "%s|" "$@" "${CONTAINERS_CONF:-plain}"\n')
    real.chmod(0o755)
    environment = {"PATH": f"{place}/wrapper:{place}/real:{os.defpath}"}
    user = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    done = subprocess.run(
        [wrapper, "run", "two words", ""], env=environment, capture_output=True, text=True, check=True, **user
    )
    assert done.stdout == "run|two words||plain|"


@pytest.mark.parametrize(
    "command, words",
    [
        (["image", "debian-99"], "there are debian-12 and debian-13"),
        (["fleet"], "Usage: scripts/hosts/fleet up"),
        (["fleet", "up", "try", "host-without-image"], "Usage: scripts/hosts/fleet up"),
    ],
)
def test_who_asks_for_what_there_is_not_is_told_what_there_is(command: list[str], words: str) -> None:
    done = subprocess.run([SCRIPTS / command[0], *command[1:]], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert words in done.stderr
