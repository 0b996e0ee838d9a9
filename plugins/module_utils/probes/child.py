# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A process of our own that works aside and tells what it finds, and that ends in time whatever it does."""

from __future__ import annotations

import json
import math
import os
import resource
import select
import signal
import time
import typing as t

Emit = t.Callable[[t.Any], None]


class Child:
    """Runs ``work(emit)`` in a forked process; what it emits (JSON values) is read by :meth:`answers`."""

    def __init__(self, work: t.Callable[[Emit], None], seconds: float) -> None:
        self._source, sink = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            _work_and_exit(work, sink, seconds)
        os.close(sink)

    def answers(self, deadline: float) -> list[t.Any]:
        """What it has emitted until it ended, or until the monotonic time *deadline*; then it is stopped."""
        lines = b""
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._source], [], [], left)[0]:
                break
            block = os.read(self._source, 1 << 16)
            if not block:
                break
            lines += block
        os.close(self._source)
        self._stop()
        return [json.loads(line) for line in lines.split(b"\n")[:-1]]

    def _stop(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        # Not waited for long: in an uninterruptible read it does not even die of SIGKILL, and init will reap it.
        for _attempt in range(20):
            if os.waitpid(self._pid, os.WNOHANG)[0]:
                return
            time.sleep(0.01)


def _work_and_exit(work: t.Callable[[Emit], None], sink: int, seconds: float) -> t.NoReturn:
    """Never returns: what comes after the fork in the parent is not for the child to do."""
    status = 1
    try:
        # If the parent is killed, this ends the child in time, in the middle of a regular expression too.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(math.ceil(seconds))
        # No lock and no pipe of the parent may outlive it here.
        os.closerange(0, sink)
        os.closerange(sink + 1, 4096)
        _soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        with os.fdopen(sink, "wb", buffering=0) as stream:

            def emit(value: t.Any) -> None:
                line = memoryview(json.dumps(value).encode() + b"\n")
                while line:
                    line = line[stream.write(line) :]

            work(emit)
        status = 0
    finally:
        os._exit(status)
