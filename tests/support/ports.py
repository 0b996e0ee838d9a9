"""Ports for servers of tests, which nobody else takes between their choice and the start of the server."""

from __future__ import annotations

import contextlib
import random
import socket
from pathlib import Path

HOST = "127.0.0.1"
# Below those that the kernel gives to connections by itself.
_LEAST = 15000
# Names in the abstract namespace: the kernel frees them when our process ends, however it does.
_reserved: list[socket.socket] = []


def free_port() -> int:
    """A port on the loopback where nobody listens; as long as this process lives, no other test is given it."""
    kernels = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for port in random.sample(range(_LEAST, max(kernels, _LEAST + 5000)), 2000):
        if _is_reserved(port) and _is_free(port):
            return port
    raise AssertionError("no port is free")


def _is_reserved(port: int) -> bool:
    name = socket.socket(socket.AF_UNIX)
    try:
        name.bind(f"\0wellkept-tests-port-{port}")
    except OSError:
        name.close()
        return False
    _reserved.append(name)
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((HOST, port))
        return True
    return False
