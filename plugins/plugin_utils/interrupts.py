# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One Ctrl-C ends a run, at whatever instant it comes.

Python cannot pass an exception on from a hook around ``fork`` or from the removal of a weak reference: it prints
``Exception ignored in``, and goes on. Ansible forks for each task and host, and its answer to a signal is an exception;
on a busy machine every fifth Ctrl-C that came just when a task began was lost so, by the controller or by the worker.
By then Ansible has given up its handler: a second Ctrl-C would kill the controller on the spot, and leave the run open
and the module on the host at work.

Workers hand their results over through one queue. One that dies while it does so leaves the queue locked for ever, and
the controller waits for that lock when it ends.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any

from ansible.executor.task_queue_manager import FinalQueue

SEND_AGAIN_AFTER = 0.1
_TO_STOP = (signal.SIGINT, signal.SIGTERM)


def let_none_be_lost() -> None:
    """From now on neither this process nor one that it forks goes on after it was told to stop."""
    _send_again_what_is_ignored()
    _let_signals_end_what_is_forked()
    _let_workers_hand_over_before_they_end()


def _send_again_what_is_ignored() -> None:
    handler, owner, report = signal.getsignal(signal.SIGINT), os.getpid(), sys.unraisablehook

    def send_again_if_lost(ignored: Any) -> None:
        if os.getpid() != owner or not issubclass(ignored.exc_type, KeyboardInterrupt):
            report(ignored)
            return
        signal.signal(signal.SIGINT, handler)
        again = threading.Timer(SEND_AGAIN_AFTER, os.kill, (owner, signal.SIGINT))
        again.daemon = True
        again.start()

    sys.unraisablehook = send_again_if_lost


def _let_signals_end_what_is_forked() -> None:
    """Until a forked worker has a handler of its own a signal ends it at once: the controller's is not meant for it."""
    before: list[Any] = []

    def hold() -> None:
        before[:] = signal.pthread_sigmask(signal.SIG_BLOCK, _TO_STOP)

    def release() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def end_by_signals() -> None:
        for number in _TO_STOP:
            signal.signal(number, signal.SIG_DFL)
        release()

    os.register_at_fork(before=hold, after_in_parent=release, after_in_child=end_by_signals)


def _let_workers_hand_over_before_they_end() -> None:
    owner, put = os.getpid(), FinalQueue.put

    def put_whole(queue: FinalQueue, item: Any) -> None:
        if os.getpid() == owner:
            put(queue, item)
            return
        queue._reader.close()  # so that a worker is not held up when the controller reads no more
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _TO_STOP)
        try:
            put(queue, item)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    FinalQueue.put = put_whole
