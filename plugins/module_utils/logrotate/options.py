# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of the module ``log_rotation``, and what they mean."""

from __future__ import annotations

import os
import typing as t

from ..options import read_duration
from . import config, runner
from .audit import Scope

_POLICY: dict[str, dict[str, t.Any]] = {
    "name": {"type": "str", "required": True},
    "paths": {"type": "list", "elements": "str", "required": True},
    "max_bytes": {"type": "str"},
    "frequency": {"type": "str", "choices": list(config.FREQUENCIES)},
    "keep": {"type": "int", "default": 7},
    "max_age": {"type": "str", "default": ""},
    "compress": {"type": "bool", "default": True},
    "delay_compress": {"type": "bool", "default": True},
    "create": {"type": "dict", "options": {key: {"type": "str"} for key in ("mode", "owner", "group")}},
    "copy_truncate": {"type": "bool", "default": False},
    "missing_ok": {"type": "bool", "default": False},
    "not_if_empty": {"type": "bool", "default": True},
    "shared_scripts": {"type": "bool", "default": True},
    "su": {"type": "dict", "options": {key: {"type": "str", "required": True} for key in ("user", "group")}},
    "postrotate": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "command": {"type": "list", "elements": "str"},
            "signal": {"type": "str"},
            "pid_file": {"type": "path"},
        },
        "mutually_exclusive": [("command", "signal")],
        "required_one_of": [("command", "signal")],
        "required_together": [("signal", "pid_file")],
    },
    "extra_directives": {"type": "list", "elements": "str", "default": []},
}

OPTIONS: dict[str, dict[str, t.Any]] = {
    "policies": {"type": "list", "elements": "dict", "default": [], "options": _POLICY},
    "audit_roots": {"type": "list", "elements": "path", "default": []},
    "audit_names": {
        "type": "list",
        "elements": "str",
        "default": ["*.log", "*_log", "*.err", "*.out", "syslog", "messages"],
    },
    "ignore": {"type": "list", "elements": "str", "default": []},
    "growing_within": {"type": "str", "default": "1d"},
    "reopen_within": {"type": "str", "default": "5s"},
    "config_dir": {"type": "path", "default": ""},
    "state_file": {"type": "path", "default": ""},
    "system_config": {"type": "path", "default": "/etc/logrotate.conf"},
    "program": {"type": "path", "default": ""},
    "timeout": {"type": "str", "default": "1h"},
}


class Settings(t.NamedTuple):
    """The options with their values checked; times in seconds."""

    policies: list[config.Policy]
    place: runner.Place
    scope: Scope
    system_config: str
    reopen_within: float
    timeout: float


def settings_of(params: t.Mapping[str, t.Any]) -> Settings:
    """The settings that the module's *params* state; raises MaintenanceError that names a value which is refused."""
    config_dir = params["config_dir"] or os.path.join(params["state_dir"], "log_rotation")
    growing_within = read_duration(params, "growing_within")
    return Settings(
        policies=config.policies_of(params["policies"]),
        place=runner.place_of(os.path.abspath(config_dir), params["state_file"]),
        scope=Scope(params["audit_roots"], params["audit_names"], params["ignore"], growing_within),
        system_config=params["system_config"],
        reopen_within=read_duration(params, "reopen_within"),
        timeout=read_duration(params, "timeout"),
    )
