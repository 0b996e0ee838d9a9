#!/usr/bin/python
# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rebuild a backup repository from a mirror."""

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_fetch
short_description: Rebuild a backup repository from a mirror
version_added: "0.1.0"
description:
  - Fetches what M(wellkept.maintenance.backup_mirror) sent, into an empty directory, and verifies every file by its
    SHA-256. Nothing is needed but the mirror, which says itself what it must hold.
  - The directory appears when all is there. Where a file of one of several backups is damaged, that backup is left
    out, and told; where one backup alone was asked for, nothing appears.
  - C(<directory>/<source>) is then what the source was, such as the repository for
    M(wellkept.maintenance.restore_test) and C(playbooks/restore.yml).
  - When O(directory) holds anything, it is refused. In check mode names and sizes are looked at, nothing is fetched.
extends_documentation_fragment:
  - wellkept.maintenance.activity
  - wellkept.maintenance.mirror_destination.one
options:
  directory:
    description: Where it goes; it must be empty or missing, and the directory that it is in must exist.
    type: path
    required: true
  sources:
    description: The names of the sources to fetch; empty means all.
    type: list
    elements: str
    default: []
  label:
    description:
      - Of backups fetch this one alone, with all that it builds on; V(newest) is the newest. Empty means all.
      - Files that stand alone, such as those of a WAL archive, are fetched in any case.
    type: str
    default: ""
seealso:
  - module: wellkept.maintenance.backup_mirror
author:
  - The Wellkept team (@wellkept)
"""

EXAMPLES = r"""
- name: Rebuild the repository and the WAL archive after a disaster
  wellkept.maintenance.backup_fetch:
    destination:
      name: vault
      type: sftp
      host: vault.example.net
      user: mirror-db1
      path: /
      key_file: /root/.ssh/mirror
    directory: /var/backups/fetched
    label: newest
"""

RETURN = r"""
checks:
  description: What was verified.
  returned: always
  type: list
  elements: dict
  sample:
    - name: fetched from vault
      status: passed
      expected: every file as it was sent, by its hash
      observed: 1204 files, 12.4 GiB, in /var/backups/fetched
      advice: ""
      evidence: {labels: [20261121T093000Z-full-1a2b]}
metrics:
  description: What was measured.
  returned: always
  type: dict
  sample:
    fetched_bytes: {value: 13314398617, unit: bytes}
    fetch_seconds: {value: 310.2, unit: seconds}
changes:
  description: The directory that was made.
  returned: always
  type: list
  elements: dict
  sample:
    - {kind: directory, name: /var/backups/fetched, before: empty, after: 1204 files fetched from vault}
artifacts:
  description: None.
  returned: always
  type: list
  elements: dict
  sample: []
"""

import contextlib
import os
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.wellkept.maintenance.plugins.module_utils.activity import carry_out
from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.wellkept.maintenance.plugins.module_utils.mirror import destinations as places
from ansible_collections.wellkept.maintenance.plugins.module_utils.mirror import fetching
from ansible_collections.wellkept.maintenance.plugins.module_utils.mirror.destination import Connection, Entry, lost
from ansible_collections.wellkept.maintenance.plugins.module_utils.mirror.destinations import Destination
from ansible_collections.wellkept.maintenance.plugins.module_utils.mirror.memory import Record, scratch_directory
from ansible_collections.wellkept.maintenance.plugins.module_utils.mirror.report import few
from ansible_collections.wellkept.maintenance.plugins.module_utils.mirror.sources import backup_of
from ansible_collections.wellkept.maintenance.plugins.module_utils.options import reading
from ansible_collections.wellkept.maintenance.plugins.module_utils.quantities import human_bytes
from ansible_collections.wellkept.maintenance.plugins.module_utils.result import Part

OPTIONS: dict[str, dict[str, t.Any]] = {
    "destination": {"type": "dict", "options": places.OPTIONS, "required": True},
    "directory": {"type": "path", "required": True},
    "sources": {"type": "list", "elements": "str", "default": []},
    "label": {"type": "str", "default": ""},
}


class Choice(t.NamedTuple):
    """What is to be fetched, by what the mirror says of itself."""

    files: dict[str, Record]
    directories: set[str]
    flaws: list[str]


def work(module: AnsibleModule, part: Part) -> None:
    os.umask(0o077)
    destination = read_destination(module.params["destination"])
    fetching.require_empty(module.params["directory"])
    with scratch_directory(module.params["state_dir"], "fetch") as scratch, contextlib.ExitStack() as stack:
        connection = places.open_destination(destination, scratch, create=False)
        stack.callback(connection.close)
        try:
            carry_out_from(connection, module, destination, scratch, part=part)
        except connection.errors as error:
            raise lost(destination.name, error) from None


def carry_out_from(
    connection: Connection, module: AnsibleModule, destination: Destination, scratch: str, *, part: Part
) -> None:
    began = time.monotonic()
    there = connection.list()
    choice = choose(connection, there, module.params, scratch)
    problems = [f"{name} is not there as it was sent" for name in fetching.missing(choice.files, there)]
    problems += [f"the manifest {name} is not as it was written" for name in choice.flaws]
    target = module.params["directory"]
    one_alone = bool(module.params["label"])
    if module.check_mode or (one_alone and problems):
        finish(destination, choice, problems, part, where=f"{target} would be made" if not problems else "")
        return
    whole = {name: r for name, r in choice.files.items() if _unit(name) not in {_unit(n) for n in _named(problems)}}
    problems += fetching.fetch(connection, whole, choice.directories, target, partly=not one_alone)
    made = os.path.isdir(target) and bool(os.listdir(target))
    if made:
        part.change("directory", target, "empty", f"{len(whole)} files fetched from {destination.name}")
    part.metric("fetched_files", len(whole), "count")
    part.metric("fetched_bytes", sum(record.size for record in whole.values()), "bytes")
    part.metric("fetch_seconds", round(time.monotonic() - began, 3), "seconds")
    finish(destination, choice, problems, part, where=f"in {target}" if made else "")


def choose(connection: Connection, there: t.Mapping[str, Entry], params: dict[str, t.Any], scratch: str) -> Choice:
    told = fetching.read_manifests(connection, there, scratch)
    label, chain = params["label"], []
    if label:
        label, chain = fetching.chain_of(connection, told, there, params["sources"], label)
    files = fetching.choose(told, there, params["sources"], label, chain)
    if not files:
        raise MaintenanceError(
            "find what to fetch in the mirror",
            expected="at least one file of the sources " + (", ".join(params["sources"]) or "that there are"),
            observed="none",
            advice="Correct sources: " + ", ".join(sorted({name.split("/")[0] for name in told.files})),
        )
    return Choice(files, told.directories, told.flaws)


def finish(destination: Destination, choice: Choice, problems: list[str], part: Part, *, where: str) -> None:
    size = sum(record.size for record in choice.files.values())
    labels = sorted({backup_of(name)[1] for name in choice.files} - {""})
    part.require(
        f"fetched from {destination.name}",
        not problems,
        expected="every file as it was sent, by its hash",
        observed=f"{few(problems)}; {where or 'nothing was fetched'}"
        if problems
        else f"{len(choice.files)} files, {human_bytes(size)}, {where}",
        advice="Choose another backup, or another mirror. What is whole was fetched unless one backup was asked for.",
        labels=labels,
    )


def _unit(name: str) -> str:
    """The backup that *name* belongs to, or the file alone."""
    return "/".join(name.split("/")[:3]) if backup_of(name)[1] else name


def _named(problems: t.Iterable[str]) -> list[str]:
    return [problem.partition(" is not there")[0] for problem in problems]


def read_destination(option: dict[str, t.Any]) -> Destination:
    with reading("destination", expected="name, path and, over SSH, host, user and files for the login"):
        return places.read_destination(option["name"], option)


def main() -> None:
    carry_out("backup_fetch", OPTIONS, work, stops="backup_fetch")


if __name__ == "__main__":
    main()
