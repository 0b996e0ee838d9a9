# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation that every module shares which can run on a backup host, for a cluster on another host."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  database_host:
    description:
      - Name of the host that the cluster is on, when the module runs on the backup host, where the repository then is.
      - Empty means that the cluster is on the host that the module runs on.
      - The login options are then meant as on that host. Where they name its socket or its loopback address, ssh
        forwards it for as long as the module runs; the server needs neither a port nor a password.
    type: str
    default: ""
  ssh:
    description:
      - How that host is reached from the backup host, by the program ssh.
      - Nobody is asked anything, and a host that is not known is not talked to.
    type: dict
    default: {}
    suboptions:
      host:
        description: Its name or address; empty means O(database_host).
        type: str
        default: ""
      port:
        description: Port of its sshd.
        type: int
        default: 22
      user:
        description:
          - Account to log in to. To the server's peer authentication it is who connects.
          - With a WAL archive it must be the server's user, or root.
        type: str
        default: postgres
      key_file:
        description: Private key; empty means those that ssh takes by itself.
        type: path
        default: ""
      known_hosts:
        description: File with its host keys; empty means those that ssh knows by itself.
        type: path
        default: ""
"""
