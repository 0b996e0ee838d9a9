# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a cluster consists of beside its rows: schema, sequences, extensions, roles and their rights.

``schema`` and ``roles`` hold the queries, ``listing`` carries them out, ``record`` keeps the answers of the live
cluster at the point of a backup, ``comparison`` holds those of a restored one against them.
"""
