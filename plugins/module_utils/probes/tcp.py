# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Probe of TCP ports: do they take a connection, and how fast."""

from __future__ import annotations

import functools
import socket
import time
import typing as t

from ..quantities import human_seconds, parse_duration
from ..result import Part, limit_status
from .running import Probe

OPTIONS: dict[str, dict[str, t.Any]] = {
    "name": {"type": "str", "default": ""},
    "host": {"type": "str", "default": "127.0.0.1"},
    "port": {"type": "int", "required": True},
    "warn_seconds": {"type": "float", "default": 0.5},
    "fail_seconds": {"type": "float", "default": 3.0},
    "timeout": {"type": "str", "default": "5s"},
}


def probes(ports: t.Sequence[dict[str, t.Any]]) -> list[Probe]:
    return [Probe(f"TCP port {name_of(port)}", functools.partial(probe, port)) for port in ports]


def name_of(port: dict[str, t.Any]) -> str:
    return port["name"] or f"{port['host']}:{port['port']}"


def probe(port: dict[str, t.Any], part: Part) -> None:
    """Connect to *port* and close again."""
    name = name_of(port)
    limit = parse_duration(port["timeout"])
    began = time.monotonic()
    try:
        socket.create_connection((port["host"], port["port"]), timeout=limit).close()
    except (OSError, OverflowError) as error:
        part.check(
            f"TCP connection to {name}",
            "failed",
            expected=f"a connection to {port['host']} port {port['port']}",
            observed=describe(error, limit),
            advice="Start the service, or see whether a firewall is in between.",
        )
        return
    seconds = time.monotonic() - began
    part.metric(f"tcp_connect_seconds {name}", round(seconds, 5), "seconds")
    part.check(
        f"TCP connection to {name}",
        limit_status(seconds, port["warn_seconds"], port["fail_seconds"]),
        expected=f"a connection within {human_seconds(port['warn_seconds'])}"
        f" (fails beyond {human_seconds(port['fail_seconds'])})",
        observed=f"connected in {human_seconds(seconds)}",
        advice="See the load of the service and the network to it.",
    )


def describe(error: Exception, limit: float) -> str:
    if isinstance(error, (socket.timeout, TimeoutError)):
        return f"no connection within {human_seconds(limit)}"
    if isinstance(error, socket.gaierror):
        return f"the name cannot be resolved: {error.strerror}"
    return (getattr(error, "strerror", None) or str(error)).lower()
