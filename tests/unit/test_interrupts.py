"""A KeyboardInterrupt that Python has to ignore comes again: in real processes that interrupt themselves."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from support.modules import COLLECTIONS

START = """
import os, signal, time, weakref
from ansible_collections.wellkept.maintenance.plugins.plugin_utils import interrupts

def as_ansible_does(number, frame):
    signal.signal(number, signal.SIG_DFL)
    raise KeyboardInterrupt

def interrupt(times=iter(range({times}))):
    if next(times, None) is not None:
        os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, as_ansible_does)
interrupts.let_none_be_lost()
"""
WAIT = """
try:
    time.sleep(120)
except KeyboardInterrupt:
    print("interrupted")
"""
PLACES = {
    "before fork": "os.register_at_fork(before=interrupt)\nos.fork() or os._exit(0)",
    "after fork": "os.register_at_fork(after_in_parent=interrupt)\nos.fork() or os._exit(0)",
    "a weak reference": "gone = {0}\nwatched = weakref.ref(gone, lambda _: interrupt())\ndel gone",
}


def run(program: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(COLLECTIONS)}
    return subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=240, check=False
    )


@pytest.mark.parametrize("place", PLACES)
def test_where_python_ignores_it_it_comes_again(place: str) -> None:
    done = run(START.format(times=1) + PLACES[place] + WAIT)
    assert (done.stdout, done.stderr) == ("interrupted\n", "")


def test_it_comes_until_it_is_heard() -> None:
    done = run(START.format(times=3) + PLACES["after fork"] + "\nfor _ in range(2): os.fork() or os._exit(0)" + WAIT)
    assert done.stdout == "interrupted\n", done.stderr


def test_a_forked_process_interrupts_nobody() -> None:
    program = START.format(times=0) + (
        "os.register_at_fork(after_in_child=lambda: signal.raise_signal(signal.SIGINT))\n"
        "pid = os.fork()\nif not pid: time.sleep(1); os._exit(7)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    )
    done = run(program)
    assert done.stdout == "7\n"
    assert "Exception ignored" in done.stderr, "it was lost there, and said to be"


def test_other_errors_are_reported_as_ever() -> None:
    done = run(START.format(times=0) + "os.register_at_fork(before=lambda: 1 / 0)\nos.fork() or os._exit(0)")
    assert "ZeroDivisionError" in done.stderr
    assert done.returncode == 0


def test_sigint_that_is_heard_is_left_alone() -> None:
    done = run(
        START.format(times=1) + "\ntry:\n    interrupt()\nexcept KeyboardInterrupt:\n    print('once')\ntime.sleep(0.5)"
    )
    assert (done.stdout, done.returncode) == ("once\n", 0)
