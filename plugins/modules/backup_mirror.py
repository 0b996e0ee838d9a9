#!/usr/bin/python
# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Mirror backups to other places, and verify them there."""

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_mirror
short_description: Mirror backups off-site, verified there by hash
version_added: "0.1.0"
description:
  - Copies the complete backups of a repository, a WAL archive, or any other tree to one or more destinations, and
    verifies them there by SHA-256, not by name and size.
  - Where the account there may run commands, C(sha256sum) reads the files there; elsewhere they are read back. What was
    just sent is always verified, everything else again within O(reread_within).
  - A file has its name there only when it is whole, and the description of a backup goes last. A run that was killed is
    continued by the next one, and nothing is sent twice.
  - A file that never changes, but has changed here, is not sent, and the mirror keeps what it has. What expired here
    is removed there, too, within O(remove_at_most), never the newest backup that was proven, and nothing while the
    newest backup there is not sound.
  - In a destination that is C(append_only) nothing is changed or removed from here, and it is tried whether it can be.
  - The module M(wellkept.maintenance.backup_fetch) rebuilds a repository from a mirror.
  - In check mode nothing is written anywhere; it tells what would be sent and removed, as names and sizes show it.
extends_documentation_fragment:
  - wellkept.maintenance.activity
  - wellkept.maintenance.mirror_destination.several
options:
  sources:
    description: What is mirrored. Its name is the name of its directory in the mirror.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Its name; it must stay the same.
        type: str
        required: true
      path:
        description: The directory. One that is empty or missing is an error.
        type: path
        required: true
      kind:
        description:
          - V(core) is a repository of M(wellkept.maintenance.backup), V(wal) its WAL archive.
          - V(restic) and V(pgbackrest) are repositories of these programs, V(tree) is anything else.
        type: str
        choices: [core, wal, tree, restic, pgbackrest]
        default: core
      exclude:
        description: Patterns of paths below it that are left out; for V(tree), V(restic) and V(pgbackrest).
        type: list
        elements: str
        default: []
      mutable:
        description: Patterns of paths below it that are written anew under their names. All others must never change.
        type: list
        elements: str
        default: []
  owner:
    description: Whose mirror it is; the name of the host when empty. A directory that belongs to another is refused.
    type: str
    default: ""
  reread_within:
    description: Everything there is verified again at the latest at the first run after this time.
    type: str
    default: 30d
  full:
    description: Verify everything there now.
    type: bool
    default: false
  read_budget:
    description: Of what is there for long, begin to verify nothing more in a run when this much was; V(0) is no limit.
    type: str
    default: "0"
  time_budget:
    description: Of what is there for long, begin to verify nothing more in a run after this time; V(0) is no limit.
    type: str
    default: "0"
  max_age:
    description: The newest complete backup there may have been begun at most so long ago.
    type: str
    default: 26h
  remove_at_most:
    description:
      - When more than this share of the files or bytes there would have to be removed, in percent, nothing is.
      - It guards the mirror against a repository that was emptied.
    type: float
    default: 50
seealso:
  - module: wellkept.maintenance.backup
  - module: wellkept.maintenance.backup_fetch
author:
  - The Wellkept team (@wellkept)
"""

EXAMPLES = r"""
- name: Mirror the backups over SFTP to an account that can only add files
  wellkept.maintenance.backup_mirror:
    sources:
      - {name: repository, path: /var/backups/wellkept}
      - {name: wal, path: /var/lib/wellkept-wal, kind: wal}
    destinations:
      - name: vault
        type: sftp
        host: vault.example.net
        user: mirror-db1
        path: /
        key_file: /root/.ssh/mirror
        append_only: true

- name: Keep a copy on a disk that is mounted
  wellkept.maintenance.backup_mirror:
    sources: [{name: repository, path: /var/backups/wellkept}]
    destinations: [{name: disk, type: directory, path: /mnt/disk/db1}]
"""

RETURN = r"""
checks:
  description: What was verified.
  returned: always
  type: list
  elements: dict
  sample:
    - name: copy at vault
      status: passed
      expected: every file as it was sent, by its hash
      observed: 1204 files, 12.4 GiB; 38 of them verified now (sha256sum there)
      advice: ""
      evidence: {}
metrics:
  description: What was measured of each destination.
  returned: always
  type: dict
  sample:
    mirror_vault_files: {value: 1204, unit: count}
    mirror_vault_sent_bytes: {value: 104857600, unit: bytes}
    mirror_vault_age_seconds: {value: 5412.3, unit: seconds}
changes:
  description: What was sent and removed, by backup.
  returned: always
  type: list
  elements: dict
  sample:
    - kind: mirror vault
      name: repository/main/20261121T093000Z-full-1a2b
      before: not there as it is here
      after: 38 files, 100.0 MiB sent
artifacts:
  description: None.
  returned: always
  type: list
  elements: dict
  sample: []
"""

import contextlib
import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.wellkept.maintenance.plugins.module_utils.activity import carry_out
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.remembered import Budget
from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MaintenanceError, MissingToolError
from ansible_collections.wellkept.maintenance.plugins.module_utils.mirror import destinations as places
from ansible_collections.wellkept.maintenance.plugins.module_utils.mirror import report, sources
from ansible_collections.wellkept.maintenance.plugins.module_utils.mirror.destination import lost
from ansible_collections.wellkept.maintenance.plugins.module_utils.mirror.destinations import Destination
from ansible_collections.wellkept.maintenance.plugins.module_utils.mirror.flow import Mirroring, this_host
from ansible_collections.wellkept.maintenance.plugins.module_utils.mirror.memory import (
    LocalHashes,
    Records,
    scratch_directory,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.mirror.outcome import Settings
from ansible_collections.wellkept.maintenance.plugins.module_utils.named_options import read_named
from ansible_collections.wellkept.maintenance.plugins.module_utils.options import read_duration, read_size, refuse
from ansible_collections.wellkept.maintenance.plugins.module_utils.result import Part

SOURCE_OPTIONS: dict[str, dict[str, t.Any]] = {
    "name": {"type": "str", "required": True},
    "path": {"type": "path", "required": True},
    "kind": {"type": "str", "choices": list(sources.KINDS), "default": sources.CORE},
    "exclude": {"type": "list", "elements": "str", "default": []},
    "mutable": {"type": "list", "elements": "str", "default": []},
}

OPTIONS: dict[str, dict[str, t.Any]] = {
    "destinations": {"type": "list", "elements": "dict", "options": places.OPTIONS, "default": []},
    "sources": {"type": "list", "elements": "dict", "options": SOURCE_OPTIONS, "default": []},
    "owner": {"type": "str", "default": ""},
    "reread_within": {"type": "str", "default": "30d"},
    "full": {"type": "bool", "default": False},
    "read_budget": {"type": "str", "default": "0"},
    "time_budget": {"type": "str", "default": "0"},
    "max_age": {"type": "str", "default": "26h"},
    "remove_at_most": {"type": "float", "default": 50},
}


class Wish(t.NamedTuple):
    """The options, read."""

    destinations: list[Destination]
    sources: list[sources.Source]
    max_age: float


def work(module: AnsibleModule, part: Part) -> None:
    os.umask(0o077)
    wish = read_wish(module.params)
    if not wish.destinations:
        part.skip("no mirror is configured: set backup_mirror_destinations")
        return
    if module.check_mode and not any(os.path.isdir(source.path) for source in wish.sources):
        part.skip("there is nothing to mirror yet; a run that is no check makes it first, by the activity backup")
        return
    memory = os.path.join(module.params["state_dir"], "mirror")
    found = [sources.look(source) for source in wish.sources]
    report.report_sources(found, part)
    hashes = LocalHashes(os.path.join(memory, "here.json"))
    with scratch_directory(module.params["state_dir"], "work") as scratch:
        for destination in wish.destinations:
            settings = read_settings(module.params, scratch)
            records = Records(os.path.join(memory, f"at-{destination.name}.json"))
            try:
                mirror(module, destination, found, part, hashes=hashes, records=records, settings=settings, wish=wish)
            except MaintenanceError as error:
                # What is wrong with one destination keeps none of the others from being served.
                if isinstance(error, MissingToolError) and len(wish.destinations) == 1:
                    raise
                tell(destination, error, part)
    if not module.check_mode:
        hashes.save()


def mirror(
    module: AnsibleModule,
    destination: Destination,
    found: t.Sequence[sources.Found],
    part: Part,
    *,
    hashes: LocalHashes,
    records: Records,
    settings: Settings,
    wish: Wish,
) -> None:
    """Serve one destination."""
    connection = places.open_destination(destination, settings.scratch, create=not module.check_mode)
    with contextlib.closing(connection):
        run = Mirroring(destination, connection, found, hashes, records=records, settings=settings)
        try:
            outcome = run.carry_out(check_mode=module.check_mode)
        except connection.errors as error:
            raise lost(destination.name, error) from None
    if module.check_mode:
        report.announce(destination, outcome, part)
    else:
        report.report(destination, outcome, found, part, records=records, max_age=wish.max_age)


def tell(destination: Destination, error: MaintenanceError, part: Part) -> None:
    part.check(
        f"work at {destination.name}",
        "failed",
        expected=error.expected,
        observed=f"{error.what}{f' ({error.where})' if error.where else ''}: {error.observed}",
        advice=error.advice,
    )


def read_wish(params: dict[str, t.Any]) -> Wish:
    """The options; raises MaintenanceError that names all that is wrong with them."""
    advice = "Correct backup_mirror_destinations and backup_mirror_sources."
    expected = "names, paths and, over SSH, host, user and files for the login"
    chosen = read_named(
        "destination", params["destinations"], places.read_destination, expected=expected, advice=advice
    )
    given = read_named("source", params["sources"], read_source, expected=expected, advice=advice)
    if chosen and not given:
        refuse("sources", expected="at least one source", observed="none", advice=advice)
    return Wish(chosen, given, read_duration(params, "max_age"))


def read_source(name: str, option: dict[str, t.Any]) -> sources.Source:
    if not places.NAME.fullmatch(name):
        raise ValueError("name: letters, digits, dash and underscore, at most 41")
    if not os.path.isabs(option["path"]):
        raise ValueError("path: an absolute one")
    return sources.Source(name, option["path"], option["kind"], tuple(option["exclude"]), tuple(option["mutable"]))


def read_settings(params: dict[str, t.Any], scratch: str) -> Settings:
    within = 0.0 if params["full"] else read_duration(params, "reread_within")
    budget = Budget(read_duration(params, "time_budget"), read_size(params, "read_budget"))
    holder = {"run": params["run_id"], "activity": "backup_mirror"}
    return Settings(within, params["remove_at_most"], budget, params["owner"] or this_host(), holder, scratch)


def main() -> None:
    carry_out("backup_mirror", OPTIONS, work, stops="backup_mirror")


if __name__ == "__main__":
    main()
