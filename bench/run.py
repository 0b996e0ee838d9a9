"""Run every benchmark and write what they print, with the commands, to bench/RESULTS.md.

.venv/bin/python bench/run.py [NAME ...]        (what is not named keeps its section)
"""

from __future__ import annotations

import os
import platform
import re
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
    done = subprocess.run([sys.executable, str(script)], check=True, stdout=subprocess.PIPE, text=True)
    figures = done.stdout.strip()
    print(figures)
    about = (
        f"Measured on {datetime.now(UTC):%Y-%m-%d} on {os.cpu_count()} shared cores, {platform.system()} "
        f"{platform.machine()}, Python {platform.python_version()}."
    )
    return f"## {name}\n\n`.venv/bin/python bench/{name}.py`\n\n{about}\n\n{figures}\n"


def sections(text: str) -> dict[str, str]:
    """The sections of earlier results by their names."""
    parts = re.split(r"^(?=## )", text, flags=re.MULTILINE)[1:]
    return {part.split("\n", 1)[0].removeprefix("## "): part.strip() + "\n" for part in parts}


def main() -> None:
    names = sys.argv[1:] or list(BENCHMARKS)
    found = sections(RESULTS.read_text()) if RESULTS.exists() else {}
    found |= {name: measure(name) for name in names}
    about = "The machine is noisy: compare ratios, not seconds."
    RESULTS.write_text("\n".join(["# Results of `make bench`", "", about, "", *found.values()]))
    print(f"Written: {RESULTS.relative_to(BENCH.parent)}")


if __name__ == "__main__":
    main()
