# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation that the modules which open a restic repository share."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  restic_repository:
    description:
      - Where the restic repository is, as an absolute path or as C(sftp:user@host:/path).
      - Only needed to read backups when the repository is elsewhere than where it was when they were made.
    type: str
    default: ""
  restic_key_file:
    description:
      - File with the password of the restic repository, that only its owner can read. restic reads it by itself, so it
        is in no argument, environment or result.
      - Without the password nothing in the repository can be read. Keep a copy of it far from this host.
    type: path
    default: ""
  restic_ssh:
    description: How the host of an SFTP repository is reached. Nobody is asked, and unknown host keys are refused.
    type: dict
    default: {}
    suboptions:
      port:
        description: Port of its SSH server.
        type: int
        default: 22
      key_file:
        description: Private key to log in with; empty means the usual ones of the user that the module runs as.
        type: path
        default: ""
      known_hosts:
        description: File with the host keys to accept; empty means the usual ones of that user.
        type: path
        default: ""
"""
