"""How names and mount points are read."""

from __future__ import annotations

import os

from ansible_collections.wellkept.maintenance.plugins.module_utils.storage.safe_tree import (
    Samples,
    parse_mounts_below,
    shown_name,
)

MOUNTINFO = b"""22 1 254:0 / / rw - ext4 /dev/vda1 rw
40 22 0:35 / /srv/app/tmp rw - tmpfs tmpfs rw
41 22 254:0 /data /srv/app/with\\040space/in rw - ext4 /dev/vda1 rw
42 22 0:36 / /srv/application rw - tmpfs tmpfs rw
"""


def test_mounts_below_a_path_are_found_with_blanks_and_without_neighbours() -> None:
    assert parse_mounts_below(MOUNTINFO, "/srv/app") == {"/srv/app/tmp", "/srv/app/with space/in"}


def test_any_name_can_be_shown() -> None:
    assert shown_name(os.fsdecode(b"caf\xc3\xa9 \xff\n\x1b[31m")) == "café \\xff\\x0a\\x1b[31m"


def test_samples_count_all_and_keep_few() -> None:
    samples = Samples()
    for number in range(100):
        samples.add(f"/a/{number}", "busy")
    assert samples.count == 100
    assert len(samples.first) == 20
    assert str(samples) == "/a/0: busy; /a/1: busy; /a/2: busy and 97 more"
