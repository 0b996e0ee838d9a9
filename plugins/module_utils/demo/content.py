# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The demo platform's files: submissions, uploads nobody finished, sessions, exports, cached pages, grown logs.

Content and names follow from the seed. Modification times are set back from now: what is stale is so by its age.
"""

from __future__ import annotations

import hashlib
import json
import operator
import os
import random
import shutil
import time
import typing as t
from datetime import datetime, timedelta, timezone

from .database import SUBMISSION_FILES, SUBMISSIONS_PER_FILE
from .layout import Layout

ACCESS_LOG_LINES = 170_000
ERROR_LOG_LINES = 9_000
CACHED_PAGES = 1_500
ABANDONED_UPLOADS = 240
SESSION_FILES = 900
EXPORTS = 36

_DAY = 86400.0
_LOG_BEGIN = datetime(2026, 9, 1, tzinfo=timezone.utc)
_WORDS = """
    the of a to in that is was for on as with by at from this which are or an be not have one all were their more when
    learning term essay result method data question answer course theory practice example figure group model reason
    value change between under first because would other these could about after where each also only through
""".split()  # noqa: SIM905
_WORD_OF_BYTE = [_WORDS[number % len(_WORDS)] for number in range(256)]


def submission_files(seed: int) -> list[tuple[int, str, bytes]]:
    """(submission, name below the directory of submissions, content) of every submission that came with a file."""
    found = []
    for number in range(1, SUBMISSION_FILES + 1):
        submission = number * SUBMISSIONS_PER_FILE
        found.append((submission, f"{number % 20:02d}/{submission:06d}.txt", _essay(f"{seed}/submission/{submission}")))
    return found


def _essay(name: str) -> bytes:
    """Between 4 and 20 kB of words."""
    length = 600 + int.from_bytes(hashlib.sha256(name.encode()).digest()[:2], "big") % 2600
    words = operator.itemgetter(*hashlib.shake_128(name.encode()).digest(length))(_WORD_OF_BYTE)
    lines = (" ".join(words[begin : begin + 14]) for begin in range(0, length, 14))
    return ("\n".join(lines) + "\n").encode()


def submission_records(seed: int) -> list[tuple[int, str, str, int]]:
    """(submission, name, sha256 in hex, bytes) of the same files, as the database keeps them."""
    return [
        (submission, name, hashlib.sha256(content).hexdigest(), len(content))
        for submission, name, content in submission_files(seed)
    ]


def is_written(layout: Layout) -> bool:
    return os.path.isdir(layout.application) and os.path.isdir(layout.application_log)


def write(layout: Layout, seed: int) -> None:
    """Make all files aside, where only we may write, and put them in place when they are complete."""
    for leftover in (layout.unfinished, layout.application, layout.application_log):
        shutil.rmtree(leftover, ignore_errors=True)
    os.makedirs(layout.unfinished, mode=0o700)
    application = os.path.join(layout.unfinished, "app")
    logs = os.path.join(layout.unfinished, "log")
    for _submission, name, content in submission_files(seed):
        _write(os.path.join(application, "uploads", "submissions", name), content)
    _write_leftovers(application, seed)
    _write_page_cache(os.path.join(application, "cache", "pages"), seed)
    _write_logs(logs, seed)
    _give_all(layout, logs)
    for name in os.listdir(application):
        _give_all(layout, os.path.join(application, name))
    os.makedirs(os.path.dirname(layout.application_log), exist_ok=True)
    os.rename(logs, layout.application_log)
    os.rename(application, layout.application)
    os.rmdir(layout.unfinished)


def _give_all(layout: Layout, directory: str) -> None:
    for parent, _directories, files in os.walk(directory):
        layout.give(parent)
        for name in files:
            layout.give(os.path.join(parent, name))


def _write_leftovers(application: str, seed: int) -> None:
    """What a platform gathers without a purpose: half uploads, expired sessions, old exports."""
    chance = random.Random(seed)  # noqa: S311 (no secret: the same files for the same seed)
    now = time.time()
    for number in range(ABANDONED_UPLOADS):
        content = chance.getrandbits(8 * 24576).to_bytes(24576, "big")
        age = chance.uniform(0.01, 40) * _DAY
        _write(os.path.join(application, "uploads", "tmp", f"upload-{number:04d}.part"), content, now - age)
    for _number in range(SESSION_FILES):
        name = f"sess_{chance.getrandbits(128):032x}"
        content = json.dumps({"student": chance.randrange(8000), "pages": chance.randrange(90)}).encode()
        _write(os.path.join(application, "sessions", name), content, now - chance.uniform(0.01, 30) * _DAY)
    for number in range(EXPORTS):
        content = _essay(f"{seed}/export/{number}") * 8
        age = (EXPORTS - number) * 5 * _DAY
        _write(os.path.join(application, "exports", f"grades-{number:03d}.csv"), content, now - age)


def _write_page_cache(directory: str, seed: int) -> None:
    """Pages as the application caches them: named by the hash of their address."""
    for number in range(CACHED_PAGES):
        address = f"/courses/{1 + number % 240}/people/{1 + number // 240}"
        name = hashlib.sha256(address.encode()).hexdigest()
        page = b"<!doctype html><title>%s</title><pre>%s</pre>\n" % (address.encode(), _essay(f"{seed}/page/{number}"))
        _write(os.path.join(directory, name[:2], f"{name}.html"), page)


def _write_logs(directory: str, seed: int) -> None:
    """Weeks of the application's logs, never rotated."""
    os.makedirs(directory)
    for name, lines in (("access.log", _access_lines(seed)), ("error.log", _error_lines(seed))):
        with open(os.path.join(directory, name), "w", encoding="utf-8") as stream:
            stream.writelines(lines)


def _access_lines(seed: int) -> t.Iterator[str]:
    chance = random.Random(seed + 1)  # noqa: S311
    agents = (
        "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        "Mozilla/5.0 (iPhone) Safari/605.1",
    )
    pages = ("/", "/courses", "/courses/17", "/courses/203", "/courses/88/people/1", "/health")
    stamp = ""
    for number in range(ACCESS_LOG_LINES):
        if number % 4 == 0:
            stamp = (_LOG_BEGIN + timedelta(seconds=15 * number)).strftime("%d/%b/%Y:%H:%M:%S +0000")
        bits = chance.getrandbits(48)
        status = 200 if bits % 100 < 96 else 404
        size = 800 + (bits >> 30 & 16383)
        yield (
            f"10.{bits & 3}.{bits >> 2 & 255}.{bits >> 10 & 255} - - [{stamp}] "
            f'"GET {pages[(bits >> 18) % 6]}?v={bits >> 24 & 65535:04x} HTTP/1.1" {status} {size} '
            f'"https://learning.example/" "{agents[bits >> 47]}" {(bits >> 40 & 127) / 1000:.3f}\n'
        )


def _error_lines(seed: int) -> t.Iterator[str]:
    chance = random.Random(seed + 2)  # noqa: S311
    for number in range(ERROR_LOG_LINES):
        moment = (_LOG_BEGIN + timedelta(seconds=280 * number)).strftime("%Y-%m-%d %H:%M:%S")
        bits = chance.getrandbits(32)
        if bits % 400 == 0:
            yield f"{moment} ERROR mail to student{bits >> 16 & 8191}@learning.example not sent: connection timed out\n"
        elif bits % 25 == 0:
            yield f"{moment} WARNING slow page /courses/{bits >> 16 & 239}: {1 + (bits >> 8 & 7)}.{bits >> 11 & 9} s\n"
        else:
            yield f"{moment} INFO graded submission {bits >> 12 & 65535} of course C{bits >> 4 & 239:04d}\n"


def _write(path: str, content: bytes, modified: float | None = None) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as stream:
        stream.write(content)
    if modified is not None:
        os.utime(path, (modified, modified))
