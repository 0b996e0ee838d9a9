# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The application's files of the same backup, laid down beside a restore into place: never over what is there."""

from __future__ import annotations

import os
import shutil

from ..backup.repository import Backup
from ..backup.stores.registry import stores_of
from ..quantities import human_bytes
from ..result import Part
from . import in_place
from .aim import Aim
from .file_rows import restore_files
from .in_place import Place
from .in_place_flow import Wish
from .scratch_directory import overlap

_MARGIN_BYTES = 16 << 20


def show_files(wish: Wish, part: Part) -> None:
    """What of files would be restored, and where to; what stands in the way is a failed check."""
    directory = str(wish.params["files_to"])
    if not directory:
        return
    in_place.refuse_place(Place(directory))
    entries = wish.aim.backup.metadata["application_files"]
    size = sum(entry["bytes"] for entry in entries)
    status = os.statvfs(os.path.dirname(os.path.abspath(directory)))
    free = status.f_bavail * status.f_frsize
    reason = "" if entries else "the backup holds none"
    how = overlap(directory, wish.place.data)
    if how:
        reason = f"{directory} {how} the data directory"
    elif free < size + _MARGIN_BYTES:
        reason = f"they take {human_bytes(size)}, and {human_bytes(free)} are free"
    part.require(
        f"application files to {directory}",
        not reason,
        expected="files in the backup, room for them, and a place of their own",
        observed=reason
        or f"{sum(entry['count'] for entry in entries)} files, {human_bytes(size)}, of "
        f"{', '.join(entry['source'] for entry in entries)}, as of {_moment(wish.aim)}"
        + ("; what is there now is moved aside" if os.path.lexists(directory) else ""),
        advice="Name another directory as files_to, a backup that holds files, or leave files_to empty.",
    )


def _moment(aim: Aim) -> str:
    moment = str(aim.backup.metadata["restore_point"]["time"])
    return moment if aim.target.kind == "backup" else f"{moment}, the point of the backup: there is no log of files"


def restore_application_files(wish: Wish, part: Part) -> bool:
    """Lay the files of the backup down in a new directory, hold them against its list, and put it into place.

    False when they are not all there, as they were; the directory that was in place then still is.
    """
    directory = str(wish.params["files_to"])
    if not directory:
        return True
    place, backup = Place(directory), wish.aim.backup
    found = place.journal()
    if found and found.phase == in_place.SWAPPING and found.label == backup.label:
        journal = found  # killed between the two renames
    else:
        if not os.path.lexists(place.data) and found and os.path.lexists(found.aside):
            os.rename(found.aside, place.data)  # another backup was about to be put into place
            shutil.rmtree(place.work)
        journal = place.begin(f"files of {backup.label}", backup.label)
        os.mkdir(place.new, 0o700)
        if not _laid_down(wish, backup, place, part):
            return False
        in_place.make_durable(place)
    had = os.path.lexists(place.data)
    journal = place.swap(journal)
    if had and os.path.lexists(journal.aside):
        part.change("directory", place.data, "what was there", f"aside in {journal.aside}, whole")
    part.change("application files", place.data, "not restored", f"restored from {backup.label}")
    shutil.rmtree(place.work)
    return True


def _laid_down(wish: Wish, backup: Backup, place: Place, part: Part) -> bool:
    stores = [store for store in stores_of(backup, wish.params) if store.holds_directories]
    restored = [restore_files(store, backup, place.new, part) for store in stores]
    return bool(restored) and not part.failures()
