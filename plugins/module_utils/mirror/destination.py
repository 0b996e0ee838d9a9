# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What every kind of destination offers; the rest of the mirror knows no more of one than this.

Names are those of ``names``, relative to the directory of the destination. What is sent has its name only when it is
whole.
"""

from __future__ import annotations

import abc
import stat
import threading
import time
import typing as t

from ..errors import MaintenanceError

FILE, DIRECTORY, LINK, OTHER = "file", "directory", "link", "other"


class Entry(t.NamedTuple):
    """Something that is there."""

    kind: str
    size: int = 0


class Outgoing(t.NamedTuple):
    """A file to send: where it is here, how it shall be called there, and what it must consist of."""

    name: str
    path: str
    size: int
    sha256: str


class Attempt(t.NamedTuple):
    """A way to harm the file *name* there, which an append-only destination must refuse."""

    what: str
    carry_out: t.Callable[[], object]


class HarmedError(Exception):
    """Raised by an attempt that went well and was undone at once."""


class ChangedError(Exception):
    """A file here has not the content any more that it had."""


class Connection(abc.ABC):
    """An open connection to a destination; every call may raise MaintenanceError or OSError when it is lost."""

    # How contents are verified there, in words.
    verifies_by: str = "read back"
    # What its calls raise when it is lost, or something is refused there.
    errors: t.Tuple[t.Type[BaseException], ...] = (OSError,)

    @abc.abstractmethod
    def list(self) -> t.Dict[str, Entry]:
        """Everything that is there, no link followed."""

    @abc.abstractmethod
    def send(
        self, files: t.Sequence[Outgoing], there: t.Mapping[str, Entry], done: t.Callable[[Outgoing], None]
    ) -> None:
        """Send *files*, in any order, and tell *done* of each that is there for good; *there* is what was there before.

        What is there under a name is replaced, but not in an append-only destination. Raises ChangedError for a file
        that has not its hash here any more; it is then not there.
        """

    @abc.abstractmethod
    def hashes(self, names: t.Sequence[str], sizes: t.Mapping[str, int]) -> t.Iterator[t.Tuple[str, str]]:
        """SHA-256 of what is there under *names*, as far as it can be read: what cannot is left out."""

    @abc.abstractmethod
    def remove(self, names: t.Sequence[str]) -> None:
        """Remove *names* in this order; empty directories among them too. What is gone already is no error."""

    @abc.abstractmethod
    def fetch(self, names: t.Mapping[str, str], sizes: t.Mapping[str, int]) -> None:
        """Fetch files: for each name, the path here that is made anew."""

    @abc.abstractmethod
    def read(self, name: str) -> bytes:
        """The content of a small file; raises FileNotFoundError when it is not there."""

    @abc.abstractmethod
    def attempts(self, name: str) -> t.List[Attempt]:
        """All the ways to remove or change the file *name* there that this kind of connection knows."""

    def close(self) -> None:  # noqa: B027 (not every kind has something to end)
        """End the connection."""


class Pace:
    """At most so many bytes in a second, of all threads together; 0 is no limit."""

    def __init__(self, bytes_per_second: float) -> None:
        self._rate = bytes_per_second
        self._free_at = time.monotonic()
        self._lock = threading.Lock()

    def take(self, size: int) -> None:
        """Wait until *size* more bytes may go."""
        if not self._rate:
            return
        with self._lock:
            start = max(self._free_at, time.monotonic())
            self._free_at = start + size / self._rate
        time.sleep(max(0.0, start - time.monotonic()))


def kind_of(mode: int) -> str:
    if stat.S_ISREG(mode):
        return FILE
    if stat.S_ISDIR(mode):
        return DIRECTORY
    return LINK if stat.S_ISLNK(mode) else OTHER


def parents(name: str) -> t.Iterator[str]:
    """The directories on the way to *name*, the outermost first."""
    parts = name.split("/")[:-1]
    for count in range(1, len(parts) + 1):
        yield "/".join(parts[:count])


def lost(destination: str, error: BaseException) -> MaintenanceError:
    """What is raised when a destination cannot be worked on."""
    words = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return MaintenanceError(
        f"work on the mirror {destination}",
        expected="a connection until the end, room, and the right to write",
        observed=words,
        advice="See what is wrong there. The next run goes on where this one was; nothing half written has a name.",
    )
