# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of the engine pgbackrest, as modules take them; ``plugins/doc_fragments`` describes them."""

from __future__ import annotations

import typing as t

# Of every module that reads backups.
READING_OPTIONS: dict[str, dict[str, t.Any]] = {
    "pgbackrest_config": {"type": "path", "default": ""},
    "key_file": {"type": "path", "default": ""},
}
# Of the module that makes them.
PGBACKREST_OPTIONS: dict[str, dict[str, t.Any]] = {
    "pgbackrest_config": {"type": "path", "default": "/etc/wellkept/pgbackrest.conf"},
    "key_file": {"type": "path", "default": ""},
    "pgbackrest_stanza": {"type": "str", "default": ""},
    "pgbackrest_stanza_upgrade": {"type": "bool", "default": False},
    "pgbackrest_differential": {"type": "bool", "default": False},
    "pgbackrest_repo_path": {"type": "path", "default": "/var/lib/pgbackrest"},
    "pgbackrest_repo_host": {"type": "str", "default": ""},
    "pgbackrest_repo_host_user": {"type": "str", "default": "pgbackrest"},
    "pgbackrest_repo_host_config": {"type": "str", "default": ""},
    "pgbackrest_archive_async": {"type": "bool", "default": False},
    "pgbackrest_spool_path": {"type": "path", "default": "/var/spool/pgbackrest"},
}
