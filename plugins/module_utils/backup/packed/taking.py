# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a base comes from the server into compressed archives."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
import threading
import typing as t

from ...errors import MaintenanceError
from ..programs import guarded, program_failed, run_program, workers
from .compression import Compression
from .packing import Packed, Packing

_CHUNK = 1 << 20
_STAGED = ".base"


class Sending(t.NamedTuple):
    """A pg_basebackup that is told everything but where to write."""

    command: t.Sequence[str]
    environment: t.Mapping[str, str]
    timeout: float | None
    what: str


def take_packed(sending: Sending, backup: str, compression: Compression, jobs: int, *, tablespaces: bool) -> Packed:
    """Write what the server sends to archives in *backup*.

    None of it lies uncompressed on the disk meanwhile, unless there are *tablespaces*, which do not come in one stream.
    """
    with Packing(backup, compression, workers(jobs)) as packing:
        if tablespaces:
            _by_way_of_a_directory(sending, packing, os.path.join(backup, _STAGED))
        else:
            _from_stream(sending, packing)
        return packing.finish()


def _from_stream(sending: Sending, packing: Packing) -> None:
    late = threading.Event()
    with tempfile.TemporaryFile() as complaints, _started(sending, complaints) as process:
        output = t.cast(io.BufferedReader, process.stdout)
        with _ended_after(sending.timeout, process, late):
            try:
                with tarfile.open(fileobj=output, mode="r|", bufsize=_CHUNK, errors="surrogateescape") as members:
                    for member in members:
                        packing.add(member, members.extractfile(member) if member.isreg() else None)
                        members.members = []  # type: ignore[attr-defined]  # it would keep every one of them
                cut = ""
                while output.read(_CHUNK):
                    pass
            except tarfile.TarError as error:
                cut = str(error)
                output.close()
            status = process.wait()
        complaints.seek(0)
        said = complaints.read().decode(errors="replace")
    if late.is_set():
        raise MaintenanceError(
            sending.what,
            expected=f"an end within {sending.timeout:g} s",
            observed="still running, now stopped",
            advice="See why it hangs, or allow more time.",
        )
    if status != 0 or cut:
        raise program_failed(sending.what, status, said.strip() or cut)


@contextlib.contextmanager
def _started(sending: Sending, complaints: t.IO[bytes]) -> t.Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        guarded([*sending.command, "--pgdata=-", "--format=tar"]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=complaints,
        env={**os.environ, "LC_ALL": "C", **sending.environment},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def _ended_after(timeout: float | None, process: subprocess.Popen[bytes], late: threading.Event) -> t.Iterator[None]:
    def end() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(timeout or 0, end)
    if timeout:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _by_way_of_a_directory(sending: Sending, packing: Packing, directory: str) -> None:
    command = [*sending.command, f"--pgdata={directory}"]
    run_program(command, sending.environment, sending.timeout, sending.what)
    for parent, below, names in os.walk(directory):
        below.sort()
        for name in below:
            packing.add(_member(directory, os.path.join(parent, name)), None)
        for name in sorted(names):
            path = os.path.join(parent, name)
            with open(path, "rb") as stream:
                packing.add(_member(directory, path), stream)
    shutil.rmtree(directory)


def _member(root: str, path: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(os.path.relpath(path, root))
    status = os.lstat(path)
    member.mode = status.st_mode & 0o777
    if os.path.isdir(path):
        member.type = tarfile.DIRTYPE
    else:
        member.size = status.st_size
    return member
