# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation that modules share which restore from a repository, here or on another host."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  repository_ssh:
    description:
      - The host that O(repository) and O(wal_archive) are on, when it is another one; they are read there by ssh, and
        need C(python3) there. Nothing is written there but what M(wellkept.maintenance.restore_test) proved, so that
        retention and M(wellkept.maintenance.backup_verification) there know of it.
      - What the restore needs (the chain of the backup, and the WAL from it on) is fetched into a private directory,
        each file held against its SHA-256, and removed afterwards.
      - Nobody is asked anything, and a host that is not known is not talked to.
    type: dict
    suboptions:
      host:
        description: Its name or address.
        type: str
        required: true
      port:
        description: Port of its sshd.
        type: int
        default: 22
      user:
        description: Account to log in to, which may read the repository.
        type: str
        default: root
      key_file:
        description: Private key; empty means those that ssh takes by itself.
        type: path
        default: ""
      known_hosts:
        description: File with its host keys; empty means those that ssh knows by itself.
        type: path
        default: ""
      read_only:
        description:
          - The account is meant to read only. What is proven here is then known here alone.
          - Otherwise it has to be the owner of the repository, or V(root), and a proof that cannot be put there warns.
        type: bool
        default: false
"""
