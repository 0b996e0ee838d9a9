"""Modules as processes that start at once: forked from one that has imported all, as for campaigns of many runs."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .modules import COLLECTIONS
from .waiting import wait_until

_PROGRAM = """
import importlib, json, os, signal, sys
from ansible.module_utils import basic
module = importlib.import_module("ansible_collections.wellkept.maintenance.plugins.modules." + sys.argv[1])
for name in sys.argv[2:]:
    importlib.import_module(name)
print("ready", flush=True)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the children
for line in sys.stdin:
    order = json.loads(line)
    pid = os.fork()
    if pid:
        print(pid, flush=True)
        continue
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(os.open(order["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 1)
    os.dup2(1, 2)
    basic._ANSIBLE_ARGS = json.dumps(order["arguments"]).encode()
    basic._ANSIBLE_PROFILE = "legacy"
    try:
        module.main()
    except SystemExit:
        pass
    except BaseException:
        import traceback
        traceback.print_exc()
    sys.stdout.flush()
    os._exit(0)
"""


class Run:
    """One run of the module, in a process of its own; held by a descriptor, for its number may be given away again."""

    def __init__(self, pid: int, output: Path) -> None:
        self.pid = pid
        self._output = output
        self._process = -1
        with contextlib.suppress(ProcessLookupError):  # it has ended already
            self._process = os.pidfd_open(pid)
            weakref.finalize(self, os.close, self._process)

    @property
    def ended(self) -> bool:
        return self._process < 0 or bool(select.select([self._process], [], [], 0)[0])

    def kill(self) -> None:
        if not self.ended:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._process, signal.SIGKILL)

    def end(self, seconds: float = 300) -> str:
        """Wait until it has ended; returns all that it wrote."""
        wait_until(lambda: self.ended, "the module to end", seconds)
        return self._output.read_text()


class Nursery:
    """Starts runs of one module."""

    def __init__(self, process: subprocess.Popen[str], directory: Path) -> None:
        self._process = process
        self._directory = directory
        self._count = 0

    def start(self, options: dict[str, Any]) -> Run:
        assert self._process.stdin
        assert self._process.stdout
        self._count += 1
        output = self._directory / str(self._count)
        output.touch()
        internal = {"_ansible_check_mode": False, "_ansible_remote_tmp": "/tmp", "_ansible_version": "2.19"}
        order = {"output": str(output), "arguments": {"ANSIBLE_MODULE_ARGS": {**options, **internal}}}
        print(json.dumps(order), file=self._process.stdin, flush=True)
        return Run(int(self._process.stdout.readline()), output)

    def run(self, options: dict[str, Any]) -> dict[str, Any]:
        """Run the module to its end and return what it answered."""
        return {"failed": False, **json.loads(self.start(options).end())}


@contextlib.contextmanager
def nursery(module: str, *imports: str) -> Iterator[Nursery]:
    """Runs of *module* start at once while the block runs; *imports* is what it imports late."""
    with tempfile.TemporaryDirectory(prefix="wellkept-nursery-") as directory:
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, module, *imports],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(COLLECTIONS)},
        )
        try:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            yield Nursery(process, Path(directory))
        finally:
            process.communicate()
