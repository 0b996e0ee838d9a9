# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The tags by which our snapshots in a restic repository are known: nothing else there is ever touched."""

from __future__ import annotations

import typing as t

from .program import Restic

_OURS = "wellkept"
_BACKUP = "backup="
_CLUSTER = "cluster="


def tags_for(label: str, cluster: str) -> list[str]:
    """The tags of the snapshot that belongs to the backup *label*."""
    return [_OURS, _BACKUP + label, _CLUSTER + cluster]


def label_of(snapshot: t.Mapping[str, t.Any], cluster: str = "") -> str:
    """The label of the backup, of *cluster* if given, that *snapshot* belongs to; empty when it is none of ours."""
    tags = snapshot.get("tags") or ()
    if _OURS not in tags or (cluster and _CLUSTER + cluster not in tags):
        return ""
    return next((tag[len(_BACKUP) :] for tag in tags if tag.startswith(_BACKUP)), "")


def snapshots_of(restic: Restic, label: str) -> list[str]:
    """The ids of the snapshots that belong to the backup *label*."""
    return [snapshot["id"] for snapshot in restic.snapshots() if label_of(snapshot) == label]
