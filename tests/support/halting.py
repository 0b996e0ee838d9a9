"""Processes that are met in a certain state, however fast or slow the machine is: they are stopped in it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

from .waiting import wait_until

Process = subprocess.Popen[str]


def halted_when(begin: Callable[[], Process], seen: Callable[[], Any], after: float = 0.0) -> Process:
    """A process that stands still (by SIGSTOP) while *seen* is true, *after* so many seconds of that.

    One that was too fast is let go to its end, and *begin* makes another, which is stopped sooner.
    """
    for _attempt in range(20):
        process = begin()
        wait_until(lambda running=process: running.poll() is not None or seen(), "the state to be met in")
        time.sleep(after)
        if process.poll() is None:
            process.send_signal(signal.SIGSTOP)
            # What is seen of a process that is stopped is still so when it is killed or goes on.
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            if process.poll() is None and seen():
                return process
            process.send_signal(signal.SIGCONT)
        process.communicate()
        after /= 2
    raise AssertionError("no process was ever met in that state")


def told(process: Process, number: signal.Signals) -> str:
    """Let a process that stands still go on with the signal *number*; returns what it then wrote."""
    process.send_signal(number)
    process.send_signal(signal.SIGCONT)
    return process.communicate()[0]


def killed(process: Process) -> None:
    process.kill()
    process.communicate()
