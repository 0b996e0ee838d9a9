# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether the archives of a base, as they lie on the disk, hold what the server sent: by pg_verifybackup.

Each archive is unpacked to a scratch directory and read there against the part of the manifest that is about it,
several at a time. A compressor that is wrong is found so, and memory that flips a bit before an archive has its hash.
"""

from __future__ import annotations

import os
import shutil
import threading
import typing as t
from concurrent.futures import ThreadPoolExecutor

from ...files import read_json
from ...processes import run
from ..contents import BASE_MANIFEST, manifest_path
from ..programs import guarded, new_file, program_failed, workers
from ..reading import BASE_VERSION, base_command, base_problems, partial_manifest
from .unpacking import Base, make_directories

_VERSION = os.path.basename(BASE_VERSION)


class ArchivesCheck:
    """A check that goes on beside other work: :meth:`problems` waits for its end, :meth:`stop` gives it up."""

    def __init__(self, directory: str, metadata: t.Mapping[str, t.Any], bin_dir: str, scratch: str, jobs: int) -> None:
        self._base = Base(directory, metadata)
        self._manifest = read_json(self._base.path(BASE_MANIFEST))
        self._bin_dir = bin_dir
        self._scratch = scratch
        self._stop = threading.Event()
        os.mkdir(scratch, 0o700)
        self._pool = ThreadPoolExecutor(workers(jobs))
        self._checks = [self._pool.submit(self._check, archive) for archive in self._base.archives]

    def problems(self) -> list[str]:
        """What is wrong with the archives; raises what kept us from looking."""
        found = [check.result() for check in self._checks]
        self.stop()
        names = [name for names, _problems in found for name in names]
        missing = sorted(set(self._base.sizes).difference(names))
        problems = [problem for _names, problems in found for problem in problems]
        problems += [f"base: {name} is in none of the archives" for name in missing]
        if len(names) != len(set(names)):
            problems.append("base: the archives hold a file twice")
        return problems

    def stop(self) -> None:
        """End it, and leave nothing of it."""
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _check(self, archive: str) -> tuple[list[str], list[str]]:
        """The names of the files in *archive*, and what pg_verifybackup complains of."""
        place = os.path.join(self._scratch, os.path.basename(archive))
        directory, manifest = os.path.join(place, "base"), os.path.join(place, "manifest")
        make_directories(directory, self._base.packed)
        names = self._base.unpack_one(archive, directory, self._stop)
        held = set(names)
        entries = [entry for entry in self._manifest["Files"] if manifest_path(entry) in held]
        with new_file(manifest) as stream:
            stream.write(partial_manifest(self._manifest, entries))
        command = [*base_command(self._bin_dir, directory), f"--manifest-path={manifest}"]
        if _VERSION not in held:
            # By this file pg_verifybackup tells that it is a base.
            new_file(os.path.join(directory, _VERSION)).close()
            command.append(f"--ignore={_VERSION}")
        done = run(guarded(command), accept=range(-64, 256), what="run pg_verifybackup")
        if done.returncode not in (0, 1):
            raise program_failed(f"verify {archive}", done.returncode, done.stderr or done.stdout)
        shutil.rmtree(place)
        problems = base_problems(done.returncode, done.stdout + "\n" + done.stderr)
        return names, [f"{archive}: {problem}" for problem in problems]
