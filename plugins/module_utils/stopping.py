# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Being told to stop, without leaving anything behind."""

from __future__ import annotations

import contextlib
import signal
import types
import typing as t

from .errors import MaintenanceError

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Stopped(BaseException):
    """We were told to stop. Not an Exception: nothing but cleaning up may happen on its way."""


@contextlib.contextmanager
def stopped_in_order(what: str) -> t.Iterator[None]:
    """Let a signal to stop end the block by way of its ``finally`` clauses, and become a MaintenanceError about *what*.

    Further signals are ignored meanwhile, so that cleaning up is not stopped half-way.
    """

    def stop(number: int, _frame: types.FrameType | None) -> None:
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise Stopped(signal.Signals(number).name)

    before = {number: signal.signal(number, stop) for number in _SIGNALS}
    try:
        yield
    except Stopped as stopped:
        raise MaintenanceError(
            f"carry out {what} to its end",
            expected="to be left alone until then",
            observed=f"stopped by {stopped}; everything was cleaned up",
            advice="Run it again.",
        ) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
