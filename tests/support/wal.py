"""WAL segments for tests, and the helper run as PostgreSQL runs it."""

from __future__ import annotations

import random
import struct
import subprocess
from pathlib import Path
from typing import Any

from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.wal import wal_helper

SEGMENT_BYTES = 1 << 20
CLUSTER = "7300000000000000001"
HELPER = Path(wal_helper.__file__)


def segment_content(name: str, *, cluster: str = CLUSTER, size: int = SEGMENT_BYTES, seed: int = 1) -> bytes:
    """A file that is the segment *name* as far as its header tells, with content that packs a little."""
    number = int(name[8:16], 16) * (0x100000000 // SEGMENT_BYTES) + int(name[16:24], 16)
    header = struct.pack(
        "=HHIQI4xQII", 0xD116, 2, int(name[:8], 16), number * SEGMENT_BYTES, 0, int(cluster), SEGMENT_BYTES, 8192
    )
    body = random.Random(seed).randbytes(size // 2)
    return (header + body).ljust(size, b"\0")[:size]


def helper(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the helper like the server does: by the system's own Python, isolated."""
    command = ["/usr/bin/env", "python3", "-I", "-S", str(HELPER), *(str(argument) for argument in arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)
