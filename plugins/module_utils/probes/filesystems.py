# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Probe of file systems: used space and used inodes of every real one that is mounted, by statvfs."""

from __future__ import annotations

import fnmatch
import os
import re
import typing as t
from pathlib import Path

from ..quantities import human_bytes, parse_size
from ..result import Part, limit_status
from .running import Probe

OPTIONS: dict[str, dict[str, t.Any]] = {
    "paths": {"type": "list", "elements": "path", "default": []},
    "exclude": {"type": "list", "elements": "str", "default": []},
    "warn_used_ratio": {"type": "float", "default": 0.80},
    "fail_used_ratio": {"type": "float", "default": 0.95},
    "warn_inodes_used_ratio": {"type": "float", "default": 0.80},
    "fail_inodes_used_ratio": {"type": "float", "default": 0.95},
    "min_free_bytes": {"type": "str", "default": "0"},
}

# Types that hold no data of their own, or that are full by nature.
PSEUDO = re.compile(
    "autofs|binfmt_misc|bpf|cgroup2?|configfs|debugfs|devpts|devtmpfs|efivarfs|fuse.(gvfsd-fuse|lxcfs|portal|snapfuse)|"
    "fusectl|hugetlbfs|mqueue|nsfs|proc|pstore|ramfs|rpc_pipefs|securityfs|selinuxfs|sysfs|tracefs|"
    "cramfs|erofs|iso9660|squashfs|udf"
)
# Types whose server may not answer: each is asked in a thread of its own.
_REMOTE = re.compile(r"nfs\d?|cifs|smb3?|ceph|glusterfs|lustre|9p|afs|ncpfs|fuse(\..+)?")
_SYSTEM = re.compile(r"/(proc|sys|dev(?!/shm$)|run/(user|credentials))(/|$)")


class Mount(t.NamedTuple):
    """One line of mountinfo: ``device`` is major:minor, ``root`` what of the file system is mounted here."""

    point: str
    kind: str
    device: str
    root: str
    writable: bool


class Usage(t.NamedTuple):
    """Space and inodes, used ÷ what an ordinary user may use (as df shows it); no inodes where they are not counted."""

    used_ratio: float
    free_bytes: int
    total_bytes: int
    inodes_used_ratio: float | None


def probes(options: dict[str, t.Any]) -> list[Probe]:
    """One probe for the local file systems, and one for each that depends on another host."""
    parse_size(options["min_free_bytes"])
    if options["paths"]:
        return [Probe(f"file system of {path}", _probe(options, [path])) for path in options["paths"]]
    mounts = real(parse_mountinfo(Path("/proc/self/mountinfo").read_bytes()), options["exclude"])
    local = [mount.point for mount in mounts if not _REMOTE.fullmatch(mount.kind)]
    remote = [mount.point for mount in mounts if _REMOTE.fullmatch(mount.kind)]
    found = [Probe("local file systems", _probe(options, local))] if local else []
    return found + [Probe(f"file system of {point}", _probe(options, [point])) for point in remote]


def _probe(options: dict[str, t.Any], points: t.Sequence[str]) -> t.Callable[[Part], None]:
    def run(part: Part) -> None:
        for point in points:
            try:
                usage = measure(point)
            except OSError as error:
                unreadable(point, error, part)
            else:
                if usage is not None:
                    decide(point, usage, options, part)

    return run


def parse_mountinfo(content: bytes) -> list[Mount]:
    """The mounts in the text of /proc/self/mountinfo, in the order in which they were made."""
    mounts = []
    for line in content.decode(errors="surrogateescape").splitlines():
        fields, _dash, rest = line.partition(" - ")
        words, kind = fields.split(" "), rest.split(" ")[0]
        options = [*words[5].split(","), *rest.split(" ")[-1].split(",")]
        mounts.append(Mount(_plain(words[4]), kind, words[2], _plain(words[3]), "ro" not in options))
    return mounts


def _plain(text: str) -> str:
    r"""``/mnt/a\040b`` → ``/mnt/a b``."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), text)


def real(mounts: t.Sequence[Mount], exclude: t.Sequence[str] = ()) -> list[Mount]:
    """Those of *mounts* that can fill up, each device once and by its best name, sorted.

    What is mounted over another at the same point hides it. Of several mounts of one device (bind mounts, containers)
    the one that shows its root counts, else the one with the shortest path. An overlay is on a device that is listed
    itself, unless it is the root of a container.
    """
    visible = {mount.point: mount for mount in mounts}
    by_device: dict[str, Mount] = {}
    for mount in sorted(visible.values(), key=lambda mount: (mount.root != "/", len(mount.point), mount.point)):
        if _can_fill_up(mount) and not any(fnmatch.fnmatchcase(mount.point, pattern) for pattern in exclude):
            by_device.setdefault(mount.device, mount)
    return sorted(by_device.values())


def _can_fill_up(mount: Mount) -> bool:
    if not mount.writable or PSEUDO.fullmatch(mount.kind) or _SYSTEM.match(mount.point):
        return False
    # Containers have single files, such as /etc/hosts, bind-mounted from their host.
    return (mount.kind != "overlay" or mount.point == "/") and (mount.root == "/" or _is_directory(mount))


def _is_directory(mount: Mount) -> bool:
    # A remote server that does not answer would keep us here: its mounts are left for their own threads.
    return bool(_REMOTE.fullmatch(mount.kind)) or not os.path.isfile(mount.point)


def measure(path: str) -> Usage | None:
    """Space and inodes of the file system that *path* is on; None when it has no size."""
    numbers = os.statvfs(path)
    if numbers.f_blocks == 0:
        return None
    used = numbers.f_blocks - numbers.f_bfree
    usable = used + numbers.f_bavail
    inodes = (numbers.f_files - numbers.f_ffree) / numbers.f_files if numbers.f_files else None
    return Usage(
        used_ratio=used / usable if usable else 1.0,
        free_bytes=numbers.f_bavail * numbers.f_frsize,
        total_bytes=numbers.f_blocks * numbers.f_frsize,
        inodes_used_ratio=inodes,
    )


def decide(point: str, usage: Usage, options: dict[str, t.Any], part: Part) -> None:
    """Checks and metrics for one file system."""
    point = point.encode(errors="surrogateescape").decode(errors="replace")
    least = parse_size(options["min_free_bytes"])
    free, total = human_bytes(usage.free_bytes), human_bytes(usage.total_bytes)
    status = limit_status(usage.used_ratio, options["warn_used_ratio"], options["fail_used_ratio"])
    expected = f"at most {options['warn_used_ratio']:.0%} used (fails above {options['fail_used_ratio']:.0%})"
    if least:
        expected += f" and at least {human_bytes(least)} free"
        status = "failed" if usage.free_bytes < least else status
    part.metric(f"disk_used_ratio {point}", round(usage.used_ratio, 4), "ratio")
    part.metric(f"disk_free_bytes {point}", usage.free_bytes, "bytes")
    part.check(
        f"disk use of {point}",
        status,
        expected=expected,
        observed=f"{usage.used_ratio:.1%} used, {free} of {total} free",
        advice="See what takes the space (`du -xh --max-depth=2`), clean up, or enlarge it.",
    )
    if usage.inodes_used_ratio is None:
        return
    part.metric(f"inodes_used_ratio {point}", round(usage.inodes_used_ratio, 4), "ratio")
    warn, fail = options["warn_inodes_used_ratio"], options["fail_inodes_used_ratio"]
    part.check(
        f"inode use of {point}",
        limit_status(usage.inodes_used_ratio, warn, fail),
        expected=f"at most {warn:.0%} used (fails above {fail:.0%})",
        observed=f"{usage.inodes_used_ratio:.1%} used",
        advice="Find the directory with very many small files (`du -x --inodes --max-depth=3`) and clean it up.",
    )


def unreadable(point: str, error: OSError, part: Part) -> None:
    point = point.encode(errors="surrogateescape").decode(errors="replace")
    part.check(
        f"disk use of {point}",
        "failed" if isinstance(error, FileNotFoundError) else "unknown",
        expected="a file system that can be asked",
        observed=error.strerror or str(error),
        advice="Mount it, correct filesystems.paths, or name it in filesystems.exclude.",
    )
