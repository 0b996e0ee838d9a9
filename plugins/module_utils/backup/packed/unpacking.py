# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bases, compressed or not, as a restore needs them: laid down as directories, by several workers at a time.

What is in the archives is believed no further than the manifest of the base goes: exactly its files are laid down, each
once and in its size.
"""

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
from concurrent.futures import ThreadPoolExecutor

from ...errors import MaintenanceError
from ...files import read_json
from ..contents import BASE_MANIFEST, manifest_path
from ..programs import guarded, new_file, program_failed, workers
from ..repository import Backup
from .compression import unpacker

_CHUNK = 1 << 20
_PRIVATE = 0o600
_MANIFEST = os.path.basename(BASE_MANIFEST)
_WHAT = "unpack the base backup"


class Base:
    """The base of the backup in *directory*, by what its ``backup.json`` and its manifest say."""

    def __init__(self, directory: str, metadata: t.Mapping[str, t.Any]) -> None:
        self.directory = directory
        self.packed: dict[str, t.Any] = metadata.get("packed") or {}
        self._metadata = metadata
        manifest = self.path(BASE_MANIFEST)
        self.sizes = {manifest_path(entry): int(entry["Size"]) for entry in read_json(manifest)["Files"]}

    def path(self, *parts: str) -> str:
        return os.path.join(self.directory, *parts)

    def unpack(self, target: str, jobs: int = 0) -> None:
        """Lay a compressed base down in the directory *target*; raises MaintenanceError when it is not all of it."""
        try:
            make_directories(target, self.packed)
            names = self._unpack_all(target, jobs)
            with open(self.path(BASE_MANIFEST), "rb") as source, new_file(os.path.join(target, _MANIFEST)) as copy:
                shutil.copyfileobj(source, copy)
        except OSError as error:
            raise MaintenanceError(
                _WHAT,
                where=error.filename or target,
                expected="room and rights for all of it",
                observed=os.strerror(error.errno or 0),
                advice="Free space there, or restore to a larger file system; the backup is untouched.",
            ) from None
        missing = set(self.sizes).difference(names)
        if missing or len(names) != len(self.sizes):
            raise MaintenanceError(
                _WHAT,
                where=self.path("base"),
                expected=f"the {len(self.sizes)} files of its manifest, each once",
                observed=f"{len(names)} files; missing: {', '.join(sorted(missing)[:5]) or 'none'}",
                advice="Do not rely on this backup; restore another one.",
            )

    def _unpack_all(self, target: str, jobs: int) -> list[str]:
        stop = threading.Event()
        pool = ThreadPoolExecutor(workers(jobs))
        try:
            found = list(pool.map(lambda path: self.unpack_one(path, target, stop), self.archives))
        except BaseException:
            stop.set()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
        return [name for names in found for name in names]

    @property
    def archives(self) -> list[str]:
        return [str(archive["path"]) for archive in self.packed["archives"]]

    def unpack_one(self, archive: str, target: str, stop: threading.Event) -> list[str]:
        """Lay the files of one *archive* down below *target*; returns their names."""
        names = []
        with self._reading(archive) as members:
            for member in members:
                if self.sizes.get(member.name) != member.size or not member.isreg():
                    raise MaintenanceError(
                        _WHAT,
                        where=self.path(archive),
                        expected="files of the manifest, in their sizes",
                        observed=f"{member.name}, {member.size} bytes, of the type {member.type!r}",
                        advice="Do not rely on this backup; restore another one.",
                    )
                _lay_down(members, member, target, stop)
                names.append(member.name)
                members.members = []  # type: ignore[attr-defined]  # it would keep every one of them
        return names

    @contextlib.contextmanager
    def _reading(self, archive: str) -> t.Iterator[tarfile.TarFile]:
        """The decompressed *archive*, from a program that must come to a good end."""
        descriptor = os.open(self.path(archive), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as source, tempfile.TemporaryFile() as complaints:
            process = subprocess.Popen(
                guarded(unpacker(self.packed["compression"])),
                stdin=source,
                stdout=subprocess.PIPE,
                stderr=complaints,
                env={**os.environ, "LC_ALL": "C"},
            )
            output = t.cast(io.BufferedReader, process.stdout)
            problem = ""
            try:
                with tarfile.open(fileobj=output, mode="r|", bufsize=_CHUNK, errors="surrogateescape") as members:
                    yield members
                while output.read(_CHUNK):
                    pass
                output.close()
                process.wait()
            except tarfile.TarError as error:
                problem = str(error)
            finally:
                process.kill()
                process.wait()
                output.close()
            complaints.seek(0)
            said = complaints.read().decode(errors="replace")
        if problem or process.returncode != 0:
            raise program_failed(_WHAT, process.returncode, f"{archive}: {said or problem}")


def make_directories(target: str, packed: t.Mapping[str, t.Any]) -> None:
    """The directories of a compressed base, which are in none of its archives."""
    mode = int(packed["directory_mode"])
    os.makedirs(target, mode=0o700, exist_ok=True)
    os.chmod(target, mode)
    for name in sorted(packed["directories"]):
        path = os.path.join(target, name)
        os.makedirs(path, mode=0o700, exist_ok=True)
        os.chmod(path, mode)


def _lay_down(members: tarfile.TarFile, member: tarfile.TarInfo, target: str, stop: threading.Event) -> None:
    source = t.cast("t.IO[bytes]", members.extractfile(member))
    with new_file(os.path.join(target, member.name)) as copy:
        for block in iter(lambda: source.read(_CHUNK), b""):
            if stop.is_set():
                raise MaintenanceError(_WHAT, expected="its end", observed="it was stopped", advice="Run it again.")
            copy.write(block)
        if member.mode & 0o777 != _PRIVATE:
            os.fchmod(copy.fileno(), member.mode & 0o777)


@contextlib.contextmanager
def bases_as_directories(chain: t.Sequence[Backup], beside: str, jobs: int = 0) -> t.Iterator[list[str]]:
    """The bases of *chain*, each as a directory; those that are compressed are unpacked *beside* it for the block."""
    with contextlib.ExitStack() as stack:
        found = []
        for backup in chain:
            if not is_packed(backup.metadata):
                found.append(backup.path("base"))
                continue
            place = stack.enter_context(tempfile.TemporaryDirectory(prefix=".base-", dir=beside))
            Base(backup.directory, backup.metadata).unpack(place, jobs)
            found.append(place)
        yield found


def is_packed(metadata: t.Mapping[str, t.Any]) -> bool:
    return bool(metadata.get("packed"))


def base_bytes(metadata: t.Mapping[str, t.Any]) -> int:
    """Bytes of a base as a directory, whether it is compressed or not."""
    packed = metadata.get("packed")
    return int(packed["bytes"] if packed else metadata["bytes_by_part"]["base"])


def bytes_to_lay_down(chain: t.Sequence[Backup]) -> int:
    """At most how much a restore of *chain* writes: of more than one, those that are compressed are unpacked first."""
    unpacked = sum(base_bytes(backup.metadata) for backup in chain if is_packed(backup.metadata))
    return sum(base_bytes(backup.metadata) for backup in chain) + (unpacked if len(chain) > 1 else 0)


def is_in_base(backup: Backup, name: str) -> bool:
    """Whether the file *name* is in the base of *backup*."""
    return name in Base(backup.directory, backup.metadata).sizes
