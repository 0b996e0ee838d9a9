# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Application directories by copy: plain files below ``files/``, and ``files.json`` with the SHA-256 of each."""

from __future__ import annotations

import os
import typing as t

from ...files import sha256_of, write_json
from ...result import Part
from ..contents import FILES_MANIFEST, shown
from ..files import Copied
from ..programs import Written
from ..remote_files import trees_of
from ..repository import Backup, Repository
from .application_files import compare, lacking, lay_down, read_manifest, refuse_to_hold, report_files
from .store import Making, Restored, Saved, Store


class CopiedFiles(Store):
    """The directories in the option ``files``, on the host that the cluster is on."""

    name = "files"
    holds_directories = True

    def __init__(self, params: t.Mapping[str, t.Any]) -> None:
        super().__init__(params)
        self.directories = [os.path.abspath(directory) for directory in params.get("files") or ()]
        self.trees = trees_of(params)
        self.copies: list[Copied] = []

    @property
    def wanted(self) -> bool:
        return bool(self.directories) and self.params.get("files_engine", "copy") == "copy"

    def facts_of(self, backup: Backup) -> t.Any:
        return [entry for entry in backup.metadata["application_files"] if "directory" in entry] or None

    def prepare(self, repository: Repository, part: Part) -> None:
        if not self.params.get("database_host"):
            refuse_to_hold(self.directories, repository.root)

    def plan(self) -> int:
        return sum(self.trees.tree_bytes(directory) for directory in self.directories)

    def create(self, making: Making) -> Saved:
        target = os.path.join(making.directory, self.name)
        os.mkdir(target, 0o700)
        self.copies = [
            self.trees.copy_tree(source, os.path.join(target, str(number)))
            for number, source in enumerate(self.directories)
        ]
        manifest = os.path.join(making.directory, FILES_MANIFEST)
        write_json(manifest, [{"source": copied.source, "entries": copied.entries} for copied in self.copies])
        entries = [
            {
                "source": copied.source,
                "directory": f"{self.name}/{number}",
                "count": copied.files,
                "bytes": copied.bytes,
                "changing": [shown(path) for path in copied.changing],
            }
            for number, copied in enumerate(self.copies)
        ]
        written = {FILES_MANIFEST: Written(sha256_of(manifest), os.path.getsize(manifest))}
        return Saved({}, written, entries, lacking(self.copies))

    def report(self, part: Part) -> None:
        for copied in self.copies:
            report_files(copied, part)

    def restore(self, backup: Backup, directory: str) -> Restored:
        sources = read_manifest(backup, FILES_MANIFEST)
        for number, source in enumerate(sources):
            lay_down(backup.path(self.name, str(number)), source, directory)
        return compare(sources, directory)
