# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One Ctrl-C ends a run, at whatever instant it comes.

Python cannot pass a KeyboardInterrupt on from a hook around ``fork`` or from the removal of a weak reference: it prints
``Exception ignored in``, and goes on. Ansible forks for each task and host; on a busy machine every fifth Ctrl-C that
came just when a task began was lost so. By then Ansible has given up its handler: a second Ctrl-C would kill the
controller on the spot, and leave the run open and the module on the host at work.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any

SEND_AGAIN_AFTER = 0.1


def let_none_be_lost() -> None:
    """From now on a KeyboardInterrupt that Python had to ignore in this process is raised again a moment later."""
    handler, owner, report = signal.getsignal(signal.SIGINT), os.getpid(), sys.unraisablehook

    def send_again_if_lost(ignored: Any) -> None:
        # Forked workers inherit this, too. It is for the controller to end them.
        if os.getpid() != owner or not issubclass(ignored.exc_type, KeyboardInterrupt):
            report(ignored)
            return
        signal.signal(signal.SIGINT, handler)
        again = threading.Timer(SEND_AGAIN_AFTER, os.kill, (owner, signal.SIGINT))
        again.daemon = True
        again.start()

    sys.unraisablehook = send_again_if_lost
