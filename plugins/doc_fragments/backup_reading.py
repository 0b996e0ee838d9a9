# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of modules that read backups: of which cluster, where they are, and by which programs."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  cluster:
    description: Name of the cluster, as given to M(wellkept.maintenance.backup).
    type: str
    default: main
  repository:
    description: Directory of the backup repository.
    type: path
    required: true
  bin_dir:
    description:
      - Directory of PostgreSQL's programs, of the cluster's major version; for a restore the server's included.
      - Empty means C(/usr/lib/postgresql/<major>/bin), else the directory of these programs in PATH.
    type: str
    default: ""
"""
