"""A KeyboardInterrupt that Python has to ignore comes again: in real processes that interrupt themselves."""

from __future__ import annotations

import os
import signal
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
signal.signal(signal.SIGTERM, as_ansible_does)
{first}
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


def start(times: int, first: str = "") -> str:
    return START.format(times=times, first=first)


def run(program: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(COLLECTIONS)}
    return subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=240, check=False
    )


@pytest.mark.parametrize("place", PLACES)
def test_where_python_ignores_it_it_comes_again(place: str) -> None:
    done = run(start(1) + PLACES[place] + WAIT)
    assert (done.stdout, done.stderr) == ("interrupted\n", "")


def test_it_comes_until_it_is_heard() -> None:
    done = run(start(3) + PLACES["after fork"] + "\nfor _ in range(2): os.fork() or os._exit(0)" + WAIT)
    assert done.stdout == "interrupted\n", done.stderr


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_a_process_that_is_still_being_forked_is_ended_and_the_other_goes_on(number: str) -> None:
    """The signal comes while hooks are at work that were there before ours, as those of Python itself are."""
    program = start(0, f"os.register_at_fork(after_in_child=lambda: signal.raise_signal(signal.{number}))") + (
        "pid = os.fork()\nif not pid: os._exit(7)\nprint(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    )
    done = run(program)
    assert (done.stdout, done.stderr) == (f"{-signal.Signals[number]}\n", "")


def test_a_forked_process_has_its_own_answer_to_signals() -> None:
    program = start(0) + (
        "pid = os.fork()\n"
        "if not pid: signal.signal(signal.SIGINT, lambda *_: os._exit(7)); signal.raise_signal(signal.SIGINT)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    )
    assert run(program).stdout == "7\n"


WORKERS = """
from ansible.executor.task_queue_manager import FinalQueue
import threading
queue = FinalQueue()
def worker(number):
    if not (pid := os.fork()):
        for each in (signal.SIGINT, signal.SIGTERM): signal.signal(each, lambda *_: os._exit(1))
        while True: queue.put("result" * 100)
    return pid
def read():
    while queue.get() != "end": heard.set()
"""
KILLED = """
for _ in range(30):
    heard = threading.Event()
    reader = threading.Thread(target=read); reader.start()
    workers = [worker(n) for n in range(2)]
    assert heard.wait(120)
    for pid in workers: os.kill(pid, signal.{number})
    for pid in workers: os.waitpid(pid, 0)
    assert queue._wlock.acquire(timeout=60), "locked for ever"
    queue._wlock.release()
    queue.put("end"); reader.join()
print("free")
"""


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_workers_that_are_ended_while_they_hand_over_results_leave_the_queue_free(number: str) -> None:
    done = run(start(0) + WORKERS + KILLED.format(number=number))
    assert done.stdout == "free\n", done.stderr


def test_a_worker_whose_results_nobody_reads_any_more_can_be_ended() -> None:
    program = start(0) + WORKERS + "pid = worker(0)\ntime.sleep(1)\nqueue.close()\nos.waitpid(pid, 0)\nprint('ended')"
    assert run(program).stdout == "ended\n"


def test_other_errors_are_reported_as_ever() -> None:
    done = run(start(0) + "os.register_at_fork(before=lambda: 1 / 0)\nos.fork() or os._exit(0)")
    assert "ZeroDivisionError" in done.stderr
    assert done.returncode == 0


def test_sigint_that_is_heard_is_left_alone() -> None:
    done = run(start(1) + "\ntry:\n    interrupt()\nexcept KeyboardInterrupt:\n    print('once')\ntime.sleep(0.5)")
    assert (done.stdout, done.returncode) == ("once\n", 0)
