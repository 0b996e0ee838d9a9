# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ansible's own output in place of the progress view: where it is asked for, and where the view itself fails."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable
from typing import Any

from ansible.plugins.callback.default import CallbackModule as DefaultCallback


def or_default(method: Callable[..., None]) -> Callable[..., None]:
    """Ansible's own output instead of *method* with -v, and from the moment at which a *method* has raised.

    An exception in a callback is only a warning for Ansible, and what should have been shown would be lost.
    """

    @functools.wraps(method)
    def shown(self: Any, *arguments: Any, **options: Any) -> None:
        default = getattr(DefaultCallback, method.__name__)
        if self.as_default:
            default(self, *arguments, **options)
            return
        try:
            method(self, *arguments, **options)
        except Exception:
            self.give_up(traceback.format_exc())
            default(self, *arguments, **options)

    return shown
