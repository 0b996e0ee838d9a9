# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The stores that there are, and those that a run or a backup is about."""

from __future__ import annotations

import contextlib
import os
import typing as t

from ..repository import EXPIRED, METADATA, PARTIAL, Backup, Repository, parse_metadata
from .copied_files import CopiedFiles
from .redis_copies import RedisCopies
from .restic.files import ResticFiles
from .store import Store

# In this order: Redis is copied as it was at one instant, and that soon after the point; files take their time.
STORES: tuple[type[Store], ...] = (RedisCopies, CopiedFiles, ResticFiles)


def stores_of(backup: Backup, params: t.Mapping[str, t.Any]) -> tuple[Store, ...]:
    """The stores that *backup* holds something of, made from the options *params* of the module that reads it."""
    return tuple(store for store in all_stores(params) if store.facts_of(backup) is not None)


def all_stores(params: t.Mapping[str, t.Any]) -> tuple[Store, ...]:
    return tuple(store(params) for store in STORES)


def names_of_stores() -> tuple[str, ...]:
    """The directories in a backup that stores write to."""
    return tuple(store.name for store in STORES)


def clear_leftover(repository: Repository, name: str, stores: t.Iterable[Store]) -> None:
    """Remove what the stores hold outside of a backup that a killed run left half written, or half removed."""
    directory = os.path.join(repository.directory, name)
    label = name[len(PARTIAL) :] if name.startswith(PARTIAL) else name[len(EXPIRED) :]
    metadata: dict[str, t.Any] = {"application_files": []}
    with contextlib.suppress(OSError, ValueError), open(os.path.join(directory, METADATA), "rb") as stream:
        metadata = parse_metadata(stream.read())
    for store in stores:
        facts = store.facts_of(Backup(label, directory, metadata))
        if facts is not None or store.wanted:
            store.expire(label, facts)
