"""Waiting for a state that is seen, instead of sleeping and hoping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")


def wait_until(
    condition: Callable[[], Found], what: str | Callable[[], object] = "what was waited for", seconds: float = 120
) -> Found:
    """What *condition* returns as soon as it is true; AssertionError when it is not within *seconds*.

    *what* says in the error what was missing, or is asked for it then.
    """
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what if isinstance(what, str) else what()}")
        time.sleep(0.01)
    return found
