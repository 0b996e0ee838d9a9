# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the health check looks at of the host itself: file systems, memory, load, clock and logs."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  filesystems:
    description: Limits for file systems.
    type: dict
    default: {}
    suboptions:
      paths:
        description: Paths on the file systems to look at; when empty, every real file system that is mounted writable.
        type: list
        elements: path
        default: []
      exclude:
        description: Mount points, with wildcards, that are left out; V(*) leaves out all.
        type: list
        elements: str
        default: []
      warn_used_ratio:
        description: Limit for used space, as C(df) counts it.
        type: float
        default: 0.8
      fail_used_ratio:
        description: Limit for used space, as C(df) counts it.
        type: float
        default: 0.95
      warn_inodes_used_ratio:
        description: Limit for used inodes, where the file system counts them.
        type: float
        default: 0.8
      fail_inodes_used_ratio:
        description: Limit for used inodes, where the file system counts them.
        type: float
        default: 0.95
      min_free_bytes:
        description: Space that must be free whatever the ratio, such as V(2GiB).
        type: str
        default: "0"
  host:
    description: Limits for the host itself; in a container its own limit of memory counts where it is lower.
    type: dict
    default: {}
    suboptions:
      warn_memory_available_ratio:
        description: Least share of the memory that must be available.
        type: float
        default: 0.1
      fail_memory_available_ratio:
        description: Least share of the memory that must be available.
        type: float
        default: 0.03
      warn_swap_used_ratio:
        description: Limit for used swap.
        type: float
        default: 0.8
      fail_swap_used_ratio:
        description: Limit for used swap; V(1.0) never fails.
        type: float
        default: 1.0
      warn_load_per_core:
        description: Limit for the load over 5 minutes ÷ cores.
        type: float
        default: 2.0
      fail_load_per_core:
        description: Limit for the load over 5 minutes ÷ cores.
        type: float
        default: 8.0
      clock:
        description:
          - V(if_measurable) makes a check of the clock's offset where chrony or the kernel knows it, else none.
          - V(required) makes an offset that is not known an C(unknown) check.
          - V(never) does not look. A chrony that runs and has lost its sources is C(failed) with both others.
        type: str
        choices: [if_measurable, required, never]
        default: if_measurable
      warn_clock_offset_seconds:
        description: Limit for the clock's offset.
        type: float
        default: 0.1
      fail_clock_offset_seconds:
        description: Limit for the clock's offset.
        type: float
        default: 1.0
  logs:
    description:
      - Logs in which lines that match a pattern are counted, as far as they were added since the last run.
      - What was written before a rotation is read in the rotated file beside the log, compressed or not.
      - Lines that could not be read (rotated away, no rights) make the check C(unknown), unless it warns or fails.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the log in checks and metrics; the path when empty.
        type: str
        default: ""
      path:
        description: Path of the log, or a pattern for several; compressed files are left out.
        type: str
        required: true
      pattern:
        description: Regular expression that is searched for in each line; of letters it knows ASCII only.
        type: str
        required: true
      warn_count:
        description: Limit for the number of lines that match.
        type: int
        default: 0
      fail_count:
        description: Limit for the number of lines that match; without it the check never fails.
        type: int
      first_run_bytes:
        description: On the first run only so much at the end of each log is read.
        type: str
        default: 1MiB
"""
