# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the operator wants of each cache: how that is read, and when a cache is due. Nothing here touches a file."""

from __future__ import annotations

import re
import typing as t

from ..named_options import read_named
from ..quantities import human_bytes, human_seconds, parse_duration, parse_size
from .holding import Contents


class Cache(t.NamedTuple):
    """One cache, its quantities in seconds and bytes; None where the operator set no limit."""

    name: str
    path: str
    kind: str
    older_than: float | None
    larger_than: int | None
    always: bool
    probe: dict[str, t.Any] | None
    warm_up_urls: list[str]
    missing_ok: bool

    @property
    def slug(self) -> str:
        """The name as part of a metric's name."""
        return re.sub(r"[^a-z0-9]+", "_", self.name.lower()).strip("_")

    @property
    def probe_urls(self) -> list[str]:
        return list(self.probe["urls"]) if self.probe else []

    @property
    def condition(self) -> str:
        conditions = ["not empty"] if self.always else []
        if self.older_than is not None:
            conditions.append(f"older than {human_seconds(self.older_than)}")
        if self.larger_than is not None:
            conditions.append(f"larger than {human_bytes(self.larger_than)}")
        return " or ".join(conditions)


def reason_to_clear(cache: Cache, contents: Contents, now: float) -> str:
    """Why *cache* is due at the time *now*, as in "it was …"; empty when it is not."""
    if contents.oldest is None:
        return ""
    if cache.larger_than is not None and contents.bytes > cache.larger_than:
        return f"larger than {human_bytes(cache.larger_than)}"
    if cache.older_than is not None and now - contents.oldest > cache.older_than:
        return f"older than {human_seconds(cache.older_than)}"
    return "not empty" if cache.always else ""


def read_caches(options: t.Sequence[dict[str, t.Any]]) -> list[Cache]:
    """The caches that *options* describe; raises MaintenanceError that names all problems at once."""
    return read_named(
        "cache",
        options,
        _read_cache,
        expected="caches that say when they are cleared",
        advice="Correct them in cache_clearing_caches; nothing was cleared.",
    )


def _read_cache(name: str, option: dict[str, t.Any]) -> Cache:
    when = option["clear_when"]
    if when["older_than"] is None and when["larger_than"] is None and not when["always"]:
        raise ValueError("clear_when has no condition; set older_than, larger_than or always")
    if option["probe"] is not None and not option["probe"]["urls"]:
        raise ValueError("probe.urls is empty; list an address, or leave the probe out")
    return Cache(
        name=name,
        path=option["path"].rstrip("/") or "/",
        kind=option["kind"],
        older_than=None if when["older_than"] is None else parse_duration(when["older_than"]),
        larger_than=None if when["larger_than"] is None else parse_size(when["larger_than"]),
        always=when["always"],
        probe=option["probe"],
        warm_up_urls=list(option["warm_up_urls"]),
        missing_ok=option["missing_ok"],
    )
