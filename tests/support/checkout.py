"""A fresh copy of the checkout in which the demo platform runs, as a new user would have it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .modules import ROOT

_NOT_COPIED = shutil.ignore_patterns(
    ".git", ".venv", ".demo", ".wellkept", ".cache", ".*_cache", "__pycache__", "tests"
)


class DemoCheckout:
    """The copy; ``play`` runs a playbook of it on the demo inventory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.demo = directory / ".demo"
        self._calls = directory / "module-executions"

    def environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "WELLKEPT_"))}
        return {
            **kept,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "ANSIBLE_HOME": str(self.directory / ".cache/ansible"),
            "ANSIBLE_CONFIG": str(self.directory / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
        }

    def run(self, *command: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.directory,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def play(self, playbook: str, *options: str) -> subprocess.CompletedProcess[str]:
        return self.run("ansible-playbook", "-i", "inventories/demo", f"playbooks/{playbook}.yml", *options)

    def play_counting(self, playbook: str, *options: str) -> tuple[subprocess.CompletedProcess[str], int]:
        """Like play, and how many times Ansible started Python on the host: once for each execution of a module."""
        counter = self.directory / "counting-python"
        counter.write_text(f'#!/bin/sh\necho x >>"{self._calls}"\nexec "{sys.executable}" "$@"\n')
        counter.chmod(0o755)
        self._calls.write_text("")
        done = self.play(playbook, "-e", f"ansible_python_interpreter={counter}", *options)
        return done, len(self._calls.read_text().splitlines())

    def report(self) -> dict[str, Any]:
        """The newest report as JSON."""
        document: dict[str, Any] = json.loads((self.demo / "reports/latest/report.json").read_text())
        return document


@contextlib.contextmanager
def demo_checkout() -> Iterator[DemoCheckout]:
    """A checkout with its demo platform running; both are gone afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="wellkept-demo-"))
    directory.chmod(0o755)
    copy = DemoCheckout(directory / "checkout")
    try:
        shutil.copytree(ROOT, copy.directory, symlinks=True, ignore=_NOT_COPIED)
        built = copy.run("scripts/demo_platform", "present")
        assert built.returncode == 0, built.stdout + built.stderr
        yield copy
    finally:
        copy.run("scripts/demo_platform", "absent")
        shutil.rmtree(directory, ignore_errors=True)
