#!/usr/bin/python
# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: cache_clearing
short_description: Clear application caches without the application noticing
version_added: "0.1.0"
description:
  - Each cache is measured first, and cleared only when O(caches[].clear_when) says that it is due. An empty one
    never is.
  - The application has to answer before, or nothing is cleared. Afterwards it has to answer as fast as before.
  - A directory is exchanged for an empty one in one step, and the old one deleted out of sight, so that the application
    never sees a half-deleted tree. What a killed run left of that is deleted by the next one.
  - A cache of nginx is deleted file by file where it is, after seeing that it has nginx's layout.
  - Refused is what M(wellkept.maintenance.storage_cleanup) refuses, such as a path with a link in it or a system
    directory.
options:
  caches:
    description: The caches. No cache at all means that the activity is skipped.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: What the cache is called in checks and reports; its path when not given.
        type: str
      path:
        description: Absolute path of the cache's directory.
        type: str
        required: true
      kind:
        description:
          - V(directory) exchanges the whole directory for an empty one at once and then deletes the old one.
          - V(nginx) deletes the cached files one by one where they are, as nginx expects its directory to stay.
        type: str
        choices: [directory, nginx]
        default: directory
      clear_when:
        description: The cache is cleared when any of these holds and there is something in it.
        type: dict
        required: true
        suboptions:
          older_than:
            description: Its oldest file was last modified longer ago than this, like V(1d).
            type: str
          larger_than:
            description: It takes up more than this on disk, like V(100MiB).
            type: str
          always:
            description: At every run.
            type: bool
            default: false
      probe:
        description: How to tell that the application answers. Without it, that is V(unknown) after a clearing.
        type: dict
        suboptions:
          urls:
            description: Addresses that are asked for five times each, before and after.
            type: list
            elements: str
            required: true
          status:
            description: HTTP statuses that are good answers.
            type: list
            elements: int
            default: [200]
          max_latency_ratio:
            description: How many times the median latency of before the one of afterwards may be.
            type: float
            default: 3.0
          min_allowed_seconds:
            description: Latency that is always allowed, however fast the application was before.
            type: float
            default: 0.25
          timeout_seconds:
            description: How long one answer may take.
            type: float
            default: 10.0
      warm_up_urls:
        description: Addresses that are asked for once after a clearing, so that users find the cache filled. Each
          has to answer with a status of 2xx or 3xx.
        type: list
        elements: str
        default: []
      missing_ok:
        description: Whether it is normal that the directory does not exist; otherwise that is a warning.
        type: bool
        default: false
extends_documentation_fragment:
  - wellkept.maintenance.activity
author:
  - The Wellkept team (@wellkept)
seealso:
  - module: wellkept.maintenance.storage_cleanup
"""

EXAMPLES = r"""
- name: Clear the caches that are due
  wellkept.maintenance.cache_clearing:
    caches:
      - name: pages
        path: /srv/app/cache/pages
        clear_when:
          larger_than: 100MiB
          older_than: 1d
        probe:
          urls: ["http://127.0.0.1:8080/health"]
        warm_up_urls: ["http://127.0.0.1:8080/"]
      - name: proxy
        path: /var/cache/nginx/app
        kind: nginx
        clear_when:
          larger_than: 2GiB
        probe:
          urls: ["https://app.example.org/"]
"""

RETURN = r"""
checks:
  description: For each cache, whether its directory may be cleared, whether it was cleared if that was due, and whether
    the application answered before and afterwards.
  returned: always
  type: list
  elements: dict
  sample:
    - name: "cache pages: cleared when due"
      status: passed
      expected: nothing from before the clearing
      observed: "cleared because it was larger than 100 MiB; removed 2040 files, 112.4 MiB"
      advice: ""
      evidence: {removed_files: 2040, removed_bytes: 117860966}
metrics:
  description: What was removed and how fast the application answered.
  returned: always
  type: dict
  sample:
    freed_bytes: {value: 117860966, unit: bytes}
    baseline_latency_of_pages: {value: 0.0031, unit: seconds}
    latency_of_pages: {value: 0.0034, unit: seconds}
    cold_latency_of_pages: {value: 0.0412, unit: seconds}
changes:
  description: One entry for each cache that was cleared, or would be in check mode.
  returned: always
  type: list
  elements: dict
  sample:
    - kind: cache
      name: pages
      before: 2040 files, 112.4 MiB, the oldest of 3 d ago
      after: empty
artifacts:
  description: Always empty.
  returned: always
  type: list
  elements: dict
  sample: []
"""

import contextlib
import os
import time

from ansible_collections.wellkept.maintenance.plugins.module_utils.activity import carry_out
from ansible_collections.wellkept.maintenance.plugins.module_utils.caches import KINDS
from ansible_collections.wellkept.maintenance.plugins.module_utils.caches.application import Application
from ansible_collections.wellkept.maintenance.plugins.module_utils.caches.directory import put_back
from ansible_collections.wellkept.maintenance.plugins.module_utils.caches.holding import Held
from ansible_collections.wellkept.maintenance.plugins.module_utils.caches.wishes import read_caches, reason_to_clear
from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.wellkept.maintenance.plugins.module_utils.quantities import human_bytes
from ansible_collections.wellkept.maintenance.plugins.module_utils.storage.freed_space import account, free_bytes
from ansible_collections.wellkept.maintenance.plugins.module_utils.storage.guard_rails import opened_for_cleaning
from ansible_collections.wellkept.maintenance.plugins.module_utils.storage.safe_tree import (
    Samples,
    opened_way,
    remove_tree,
)

CACHE_OPTIONS = {
    "name": {"type": "str"},
    "path": {"type": "str", "required": True},
    "kind": {"type": "str", "choices": ["directory", "nginx"], "default": "directory"},
    "clear_when": {
        "type": "dict",
        "required": True,
        "options": {
            "older_than": {"type": "str"},
            "larger_than": {"type": "str"},
            "always": {"type": "bool", "default": False},
        },
    },
    "probe": {
        "type": "dict",
        "options": {
            "urls": {"type": "list", "elements": "str", "required": True},
            "status": {"type": "list", "elements": "int", "default": [200]},
            "max_latency_ratio": {"type": "float", "default": 3.0},
            "min_allowed_seconds": {"type": "float", "default": 0.25},
            "timeout_seconds": {"type": "float", "default": 10.0},
        },
    },
    "warm_up_urls": {"type": "list", "elements": "str", "default": []},
    "missing_ok": {"type": "bool", "default": False},
}


def maintain(module, part, cache):
    """Measure one cache, decide, clear it and see what came of it."""
    kind = KINDS[cache.kind]
    with contextlib.ExitStack() as stack:
        held = hold(module, part, cache, stack)
        if held is None:
            return
        tidy(module, part, cache, kind.leftovers(held), held)
        try:
            before = kind.measure(held)
        except MaintenanceError as error:
            record_trouble(part, cache, error)
            return
        now = time.time()
        part.metric(f"bytes_before_in_{cache.slug}", before.bytes, "bytes")
        why = reason_to_clear(cache, before, now)
        if not why:
            part.check(
                f"cache {cache.name}: cleared when due",
                "passed",
                expected=f"to be cleared when {cache.condition}",
                observed=f"{before.described(now)}: not due",
            )
        elif module.check_mode:
            part.change("cache", cache.name, before.described(now), "empty")
        else:
            act(part, cache, held, before, why)


def hold(module, part, cache, stack):
    """Open the cache's directory past the guard rails for as long as *stack* is; None when that was refused."""
    name = f"cache {cache.name}: directory may be cleared"
    expected = "a directory that exists and that the guard rails allow"
    state_dir = module.params["state_dir"]
    for attempt in ("first", "last"):
        try:
            parent, descriptor = stack.enter_context(opened_for_cleaning(cache.path, state_dir))
        except MaintenanceError as error:
            part.check(name, "failed", expected=error.expected, observed=error.observed, advice=error.advice)
        except FileNotFoundError as error:
            if attempt == "first" and not module.check_mode and restore(cache):
                continue
            status = "passed" if cache.missing_ok else "warned"
            advice = "Create it, correct its path, or set `missing_ok: true` where that is normal."
            part.check(name, status, expected=expected, observed=f"{error.filename} does not exist", advice=advice)
        except OSError as error:
            advice = "Run with `become: true`, or correct the path."
            part.check(name, "failed", expected=expected, observed=f"{error.filename}: {error.strerror}", advice=advice)
        else:
            part.check(name, "passed", expected=expected, observed=cache.path)
            return Held(parent, descriptor, cache.path)
        break
    return None


def restore(cache):
    """Put a directory back that a killed clearing had renamed and not yet replaced."""
    with contextlib.suppress(OSError), opened_way(os.path.dirname(cache.path)) as way:
        return put_back(way[-1], os.path.basename(cache.path))
    return False


def tidy(module, part, cache, leftovers, held):
    """Delete what a clearing that was killed left behind."""
    if not leftovers:
        return
    problems = Samples()
    files = size = 0
    for leftover in [] if module.check_mode else leftovers:
        removed = remove_tree(held.parent, leftover, f"{held.parent_path}/{leftover}")
        problems.extend(removed.problems)
        files, size = files + removed.files, size + removed.bytes
    part.change("leftover", f"{held.parent_path}/.wellkept-cleared-*", f"{len(leftovers)} of a killed run", "removed")
    part.require(
        f"cache {cache.name}: leftovers of a killed run are gone",
        not problems,
        expected="none",
        observed=str(problems) if problems else f"{len(leftovers)} found, {files} files, {human_bytes(size)} removed",
        advice="Correct owner and mode of what is named, or run with `become: true`.",
    )


def act(part, cache, held, before, why):
    """Clear *cache* if its application answers now, and measure again."""
    kind = KINDS[cache.kind]
    application = Application(cache)
    if not application.answers_before(part):
        return
    free_before = free_bytes(held.parent)
    since = time.time()
    try:
        removed = kind.clear(held)
    except MaintenanceError as error:
        record_trouble(part, cache, error)
        return
    except OSError as error:
        record_failure(part, cache, f"{error.filename or held.path}: {error.strerror}")
        return
    part.change("cache", cache.name, before.described(since), f"empty; removed {removed.files} files")
    left = kind.left(held, since)
    if removed.problems or left.files:
        record_failure(part, cache, f"{left.files} files left; {removed.problems}")
    else:
        part.check(
            f"cache {cache.name}: cleared when due",
            "passed",
            expected="nothing from before the clearing",
            observed=f"cleared because it was {why}; removed {removed.files} files, {human_bytes(removed.bytes)}",
            evidence={"removed_files": removed.files, "removed_bytes": removed.bytes},
        )
    add_to_metric(part, "removed_files", removed.files, "count")
    add_to_metric(part, "freed_bytes", removed.bytes, "bytes")
    application.verify(part)
    name = f"cache {cache.name}: freed space agrees with what was removed"
    grown = account(
        part,
        name,
        held.parent,
        removed_below=f"{held.parent_path}/",
        free_before=free_before,
        freed_by_sum=removed.bytes,
    )
    add_to_metric(part, "freed_bytes_by_statvfs", grown, "bytes")


def record_trouble(part, cache, error):
    name = f"cache {cache.name}: cleared when due"
    part.check(name, "failed", expected=error.expected, observed=error.observed, advice=error.advice)


def record_failure(part, cache, observed):
    part.check(
        f"cache {cache.name}: cleared when due",
        "failed",
        expected="nothing from before the clearing",
        observed=observed,
        advice="Correct owner and mode of what is named, or run with `become: true`; the next run goes on from here.",
    )


def add_to_metric(part, name, value, unit):
    part.metric(name, part.metrics.get(name, {"value": 0})["value"] + value, unit)


def work(module, part):
    if not module.params["caches"]:
        part.skip("no cache is listed; list them in cache_clearing_caches, or take it out of the plan here")
        return
    for cache in read_caches(module.params["caches"]):
        maintain(module, part, cache)


def main():
    options = {"caches": {"type": "list", "elements": "dict", "default": [], "options": CACHE_OPTIONS}}
    carry_out("cache_clearing", options, work)


if __name__ == "__main__":
    main()
