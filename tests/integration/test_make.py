"""The ways to run everything: what they say, what they refuse, and what they leave alone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from support.modules import ROOT


def run(
    *command: str, cwd: Path = ROOT, path: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run *command*; the programs in *path* hide those of the system."""
    search = f"{path}:{os.environ['PATH']}" if path else os.environ["PATH"]
    return subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, "PATH": search, "LC_ALL": "C", **environment},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
        timeout=900,
    )


def programs(directory: Path, **scripts: str) -> Path:
    """A directory with these shell scripts in it."""
    directory.mkdir()
    for name, text in scripts.items():
        path = directory / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
    return directory


def copy_of_scripts(directory: Path) -> Path:
    directory.mkdir()
    for name in ("scripts", "requirements"):
        shutil.copytree(ROOT / name, directory / name)
    return directory


def test_make_alone_lists_what_can_be_made() -> None:
    done = run("make")
    assert done.returncode == 0, done.stderr
    listed = set(re.findall(r"^  make ([a-z-]+) +\S", done.stdout, re.MULTILINE))
    assert listed >= {"help", "demo", "demo-clean", "test", "test-long", "lint", "lock", "bench", "build", "clean"}


def test_an_ordinary_user_is_told_the_one_command_and_the_rest_goes_on(tmp_path: Path) -> None:
    fake = programs(tmp_path / "bin", id="echo 1000", **{"apt-get": "echo never; exit 9"})
    done = run("scripts/system_packages", "no-such-program=logrotate", "sh=dash", path=fake)
    assert (done.returncode, done.stdout) == (0, "")
    assert "sudo apt-get install --no-install-recommends logrotate" in done.stderr
    assert "dash" not in done.stderr
    required = run("scripts/system_packages", "--required", "no-such-program=logrotate", path=fake)
    assert required.returncode != 0


def test_root_installs_what_is_missing_and_says_so(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    fake = programs(tmp_path / "bin", id="echo 0", **{"apt-get": f'echo "$*" >>"{calls}"'})
    done = run("scripts/system_packages", "no-such-program=logrotate", path=fake)
    assert done.returncode == 0, done.stderr
    assert "Missing: no-such-program. Installing: apt-get install --no-install-recommends logrotate" in done.stdout
    assert calls.read_text().rstrip().endswith("install --no-install-recommends logrotate")
    assert run("scripts/system_packages", "sh=dash", path=fake).stdout == ""


def test_apt_shows_its_words_when_it_fails(tmp_path: Path) -> None:
    fake = programs(tmp_path / "bin", id="echo 0", **{"apt-get": "echo E: no such package; exit 100"})
    done = run("scripts/system_packages", "--required", "no-such-program=logrotate", path=fake)
    assert done.returncode != 0
    assert "E: no such package" in done.stderr


def test_an_old_python_is_refused_with_what_to_do(tmp_path: Path) -> None:
    checkout = copy_of_scripts(tmp_path / "checkout")
    names = ("python3", "python3.11", "python3.12", "python3.13", "python3.14")
    old = programs(tmp_path / "bin", **dict.fromkeys(names, 'echo "Python 3.9.2"; exit 1'))
    done = run("scripts/venv", "demo", cwd=checkout, path=old)
    assert done.returncode != 0
    assert "Python 3.11 or later is needed; found: Python 3.9.2" in done.stderr
    assert not (checkout / ".venv").exists()


def test_what_pip_says_is_shown_in_full_when_it_fails(tmp_path: Path) -> None:
    checkout = copy_of_scripts(tmp_path / "check out")
    (checkout / "requirements" / "demo.txt").write_text("no-such-project==0.0.0 --hash=sha256:" + "0" * 64 + "\n")
    options = {"PIP_INDEX_URL": "file:///nonexistent", "PIP_EXTRA_INDEX_URL": "", "PIP_CONFIG_FILE": os.devnull}
    done = run("scripts/venv", "demo", cwd=checkout, PIP_RETRIES="0", **options)
    assert done.returncode != 0
    assert "No matching distribution found for no-such-project==0.0.0" in done.stderr
    assert not (checkout / ".venv" / "installed-demo").exists()


@pytest.mark.parametrize("name", ["control", "demo", "test"])
def test_the_pinned_requirements_have_hashes_and_name_no_registry(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    for word in ("://", "--index-url", "--extra-index-url", "--find-links", "file:"):
        assert word not in text
    pins = re.findall(r"^([A-Za-z0-9._-]+)==\S+.*\\\n +--hash=sha256:[0-9a-f]{64}", text, re.MULTILINE)
    assert len(pins) == len(re.findall(r"^[A-Za-z0-9]", text, re.MULTILINE)) > 10


@pytest.mark.long
def test_the_demo_runs_twice_from_a_fresh_clone_in_a_path_with_spaces(tmp_path: Path) -> None:
    checkout, home = tmp_path / "a fresh clone", tmp_path / "home"
    home.mkdir()
    cloned = run("git", "-c", "safe.directory=*", "clone", "--quiet", f"file://{ROOT}", str(checkout))
    assert cloned.returncode == 0, cloned.stderr
    try:
        for _time in ("first", "second"):
            done = run("make", "demo", cwd=checkout, HOME=str(home))
            assert done.returncode == 0, done.stdout + done.stderr
            assert re.search(r"Report: .*/\.demo/reports/.*\.html", done.stdout)
    finally:
        removed = run("make", "demo-clean", cwd=checkout, HOME=str(home))
    assert removed.returncode == 0, removed.stdout + removed.stderr
    assert not (checkout / ".demo").exists()
    # pip asks rustc for its version, and a rustc of rustup's makes itself a directory.
    assert {path.name for path in home.iterdir()} <= {".rustup"}
    assert run("git", "-c", "safe.directory=*", "status", "--short", cwd=checkout).stdout == ""
