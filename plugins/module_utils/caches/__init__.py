# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Kinds of caches: a file of this package each, with the four functions that :class:`Kind` names."""

from __future__ import annotations

import typing as t

from ..storage.safe_tree import Removed
from . import directory, nginx
from .holding import Contents, Held


class Kind(t.NamedTuple):
    """What is special to one kind of cache."""

    # What is in it; raises MaintenanceError when it does not look like a cache of this kind.
    measure: t.Callable[[Held], Contents]
    # Empty it without the application seeing anything but a full or an empty cache.
    clear: t.Callable[[Held], Removed]
    # What is left of what was written before a time, in seconds since 1970.
    left: t.Callable[[Held, float], Contents]
    # Names beside it that a clearing which was killed left behind.
    leftovers: t.Callable[[Held], t.List[str]]


KINDS = {
    "directory": Kind(directory.measure, directory.clear, directory.left, directory.leftovers),
    "nginx": Kind(nginx.measure, nginx.clear, nginx.left, nginx.leftovers),
}
