# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of modules that read backups of the engine pgbackrest."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  pgbackrest_config:
    description:
      - Configuration file of pgBackRest for backups of that engine. Empty means the one that they were made with.
      - Its stanza is the one that a backup names.
    type: path
    default: ""
  key_file:
    description:
      - File with the stored passphrase of pgBackRest's repository, of mode 0600. It is used instead of what the
        configuration says, so that a key which was lost or exchanged is found now.
    type: path
    default: ""
"""
