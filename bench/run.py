"""Run every benchmark and write what they print, with the commands, to bench/RESULTS.md.

.venv/bin/python bench/run.py [NAME ...]
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

BENCH = Path(__file__).resolve().parent
RESULTS = BENCH / "RESULTS.md"
BENCHMARKS = ("fleet", "backup", "restore_test")


def measure(name: str) -> str:
    """The section of the results that *name* gives."""
    script = BENCH / f"{name}.py"
    print(f"bench/{name}.py ...", flush=True)
    done = subprocess.run([sys.executable, str(script)], check=True, capture_output=True, text=True)
    explanation = done.stdout.strip()
    print(explanation)
    return f"## {name}\n\n`.venv/bin/python bench/{name}.py`\n\n{explanation}\n"


def main() -> None:
    names = sys.argv[1:] or list(BENCHMARKS)
    about = (
        f"Measured on {datetime.now(UTC):%Y-%m-%d} on {os.cpu_count()} shared cores, {platform.system()} "
        f"{platform.machine()}, Python {platform.python_version()}. The machine is noisy: compare ratios, not seconds."
    )
    sections = [measure(name) for name in names]
    RESULTS.write_text("\n".join(["# Results of `make bench`", "", about, "", *sections]))
    print(f"Written: {RESULTS.relative_to(BENCH.parent)}")


if __name__ == "__main__":
    main()
