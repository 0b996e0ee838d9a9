# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long the phases of a restore test take, and phases that go on beside each other."""

from __future__ import annotations

import contextlib
import time
import typing as t
from concurrent.futures import ThreadPoolExecutor, wait

from ..result import Part

Look = t.Callable[[Part], None]


@contextlib.contextmanager
def phase(part: Part, name: str) -> t.Iterator[None]:
    """Record how long the block took."""
    began = time.monotonic()
    try:
        yield
    finally:
        part.metric(f"{name}_seconds", round(time.monotonic() - began, 3), "seconds")


def beside(part: Part, looks: t.Sequence[Look], give_up: t.Callable[[], None]) -> None:
    """Carry out *looks* at the same time; *part* then holds what they recorded, in their order.

    Should we be stopped meanwhile, *give_up* ends what they wait for. The error of a look is raised after all ended.
    """
    parts = [Part() for _look in looks]
    with ThreadPoolExecutor(len(looks)) as pool:
        started = [pool.submit(look, own) for look, own in zip(looks, parts)]  # noqa: B905 - Python 3.9
        try:
            wait(started)
        except BaseException:
            give_up()
            raise
    for own in parts:
        part.checks += own.checks
        part.metrics.update(own.metrics)
    for one in started:
        one.result()
