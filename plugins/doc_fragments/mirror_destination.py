# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the modules share that send to mirrors, or fetch from one: how a destination is described."""

from __future__ import annotations

_SUBOPTIONS = r"""
    suboptions:
      name:
        description: Its name in checks and metrics.
        type: str
        required: true
      type:
        description:
          - V(sftp) needs the Python library paramiko here, V(rsync) the programs rsync and ssh, and rsync there.
          - V(directory) is a mounted file system; the directory must exist.
        type: str
        choices: [sftp, rsync, directory]
        required: true
      path:
        description: The directory there, one for each host. Over SSH its last part is created when it is missing.
        type: str
        required: true
      host:
        description: Name or address, for V(sftp) and V(rsync).
        type: str
        default: ""
      port:
        description: Port of the SSH server.
        type: int
        default: 22
      user:
        description: Account there.
        type: str
        default: ""
      key_file:
        description: File with the private key, without a passphrase. No other key and no agent is used.
        type: path
        default: ""
      known_hosts:
        description: File with the host's key. A host that is not in it, or has another key, is refused.
        type: path
        default: /root/.ssh/known_hosts
      append_only:
        description:
          - The account there can add files, and neither change nor remove one.
          - That is tried in each run, on a new file and on an old one. Nothing is removed from here.
        type: bool
        default: false
      keep_within:
        description:
          - For an append-only mirror whose far side itself removes what is old. A backup that is older than this, and
            has expired here, may then be missing there. Empty means that nothing may.
        type: str
        default: ""
      bwlimit:
        description: At most so much a second, as bytes or like V(10MiB); V(0) is no limit.
        type: str
        default: "0"
"""


class ModuleDocFragment:
    # Annotated, for the linter of documentation takes every other assignment here for a plain string.
    ONE: str = (
        r"""
options:
  destination:
    description: The mirror to fetch from, as it stands in C(destinations) of M(wellkept.maintenance.backup_mirror).
    type: dict
    required: true"""
        + _SUBOPTIONS
    )

    SEVERAL: str = (
        r"""
options:
  destinations:
    description: Where copies are kept.
    type: list
    elements: dict
    default: []"""
        + _SUBOPTIONS
    )
