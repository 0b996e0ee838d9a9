# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a mirror says of itself: manifests, by which all that is in it can be verified with nothing else at hand.

``.wellkept-mirror/manifests/<time>-<digits>-<number>.json`` lists files with their sizes and hashes, and directories,
and names what was removed. Each is written once; a later one counts more. A manifest holds its own hash.
"""

from __future__ import annotations

import secrets
import typing as t

from ..backup.repository import now, parse_metadata, serialise_metadata
from .memory import Record
from .names import OWN

MANIFESTS = f"{OWN}/manifests"
OWNER = f"{OWN}/owner.json"
PROBES = f"{OWN}/probes"


class Told(t.NamedTuple):
    """What the manifests of a mirror tell; ``flaws`` are those that cannot be believed."""

    files: t.Dict[str, Record]
    directories: t.Set[str]
    flaws: t.List[str]


def new_prefix() -> str:
    """How the names of a run's manifests begin; they differ by a number that follows."""
    stamp = now().translate(str.maketrans("", "", "-:."))
    return f"{MANIFESTS}/{stamp}-{secrets.token_hex(4)}"


def serialise(files: t.Mapping[str, Record], directories: t.Iterable[str], removed: t.Iterable[str] = ()) -> bytes:
    listed = {name: [record.size, record.sha256] for name, record in files.items()}
    document = {"format": 1, "files": listed, "directories": sorted(directories), "removed": sorted(removed)}
    return serialise_metadata({**document, "written": now()})


def merge(contents: t.Mapping[str, bytes]) -> Told:
    """What manifests of these names and *contents* tell together, the oldest first."""
    told = Told({}, set(), [])
    for name in sorted(contents):
        try:
            document = parse_metadata(contents[name])
            files = {path: Record(int(size), str(sha), 0.0, True) for path, (size, sha) in document["files"].items()}
            told.files.update(files)
            told.directories.update(document["directories"])
            for path in document["removed"]:
                told.files.pop(path, None)
                told.directories.discard(path)
        except (ValueError, KeyError, TypeError):
            told.flaws.append(name)
    return told


def is_manifest(name: str) -> bool:
    return name.startswith(MANIFESTS + "/") and name.endswith(".json")
