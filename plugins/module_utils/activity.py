# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What every module that carries out an activity has in common: its options, its lock, and how it ends.

A module says what is special to it in one function ``work(module, part)`` that measures, decides, acts and measures
again; :func:`carry_out` does the rest.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule

from .errors import MaintenanceError, MissingToolError
from .lock import exclusive
from .result import Part, describe
from .stopping import stopped_in_order

ACTIVITY_OPTIONS: dict[str, dict[str, t.Any]] = {
    "state_dir": {"type": "path", "default": "/var/lib/wellkept"},
    "run_id": {"type": "str", "default": ""},
}

Work = t.Callable[[AnsibleModule, Part], None]


def carry_out(
    activity: str, options: dict[str, dict[str, t.Any]], work: Work, *, stops: str = "", **module_options: t.Any
) -> None:
    """Run *work* as the module for *activity* and end the process with its part of the result.

    Ends with ``failed`` when a check failed or *work* raised MaintenanceError (which becomes a failed check: what was
    recorded before it is kept), with ``skipped`` when *work* recorded a reason and no check, or when a tool is missing
    (MissingToolError) before anything failed. *stops* names work that a signal ends in order: see ``stopping``.
    """
    module = AnsibleModule(argument_spec={**ACTIVITY_OPTIONS, **options}, supports_check_mode=True, **module_options)
    part = Part()
    began = time.monotonic()
    # A backup host works for several hosts at the same time, and once for each.
    name = "-".join(filter(None, [activity, module.params.get("database_host")]))
    lock_path = os.path.join(module.params["state_dir"], "locks", f"{name}.lock")
    holder = {"run": module.params["run_id"], "activity": activity, "user": _user()}
    try:
        in_order = stopped_in_order(stops) if stops else contextlib.nullcontext()
        with exclusive(lock_path, holder, activity), in_order:
            work(module, part)
    except MissingToolError as missing:
        if not part.failures():
            part.checks.clear()
        part.skip(f"{missing.what}: {missing.observed}; {missing.advice}")
    except MaintenanceError as error:
        part.check(
            f"{error.what} ({error.where})" if error.where else error.what,
            "failed",
            expected=error.expected,
            observed=error.observed,
            advice=error.advice,
        )
    except OSError as error:
        part.check(
            f"carry out {activity} ({error.filename})" if error.filename else f"carry out {activity}",
            "failed",
            expected="the system to allow it",
            observed=error.strerror or str(error),
            advice=f"Look at the permissions, the space and the health of {error.filename or 'the host'}.",
        )
    _end(module, part, time.monotonic() - began)


def _end(module: AnsibleModule, part: Part, seconds: float) -> t.NoReturn:
    shown = {**part.as_dict(), "changed": part.changed, "module_seconds": round(seconds, 4)}
    if module._diff and part.changes:
        shown["diff"] = [
            {
                "before_header": change["name"],
                "after_header": change["name"],
                "before": f"{change['before']}\n",
                "after": f"{change['after']}\n",
            }
            for change in part.changes
        ]
    failures = part.failures()
    if failures:
        module.fail_json(msg="; ".join(describe(check) for check in failures), **shown)
    if part.skip_reason and not part.checks:
        module.exit_json(skipped=True, msg=part.skip_reason, **shown)
    module.exit_json(**shown)
    raise AssertionError("exit_json ends the process")


def _user() -> str:
    try:
        return getpass.getuser()
    except KeyError:
        return str(os.getuid())
