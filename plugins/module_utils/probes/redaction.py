# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Take secrets and control characters out of text that comes from elsewhere, before it is shown or stored."""

from __future__ import annotations

import re

_HIDDEN = r"\1***"
_SECRETS = (
    # scheme://user:password@host
    (re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s/@]+@", re.IGNORECASE), r"\1***@"),
    # Authorization: Basic dXNlcjpwYXNz, "Cookie": "session=…"
    (re.compile(r"((?:proxy-)?authorization[\"']?\s*[:=]\s*[\"']?(?:(?:basic|bearer|digest|token|negotiate)\s+)?)"
                r"[^\s\"',;]+", re.IGNORECASE), _HIDDEN),
    (re.compile(r"((?:set-)?cookie[\"']?\s*[:=]\s*[\"']?)[^\"'\r\n]+", re.IGNORECASE), _HIDDEN),
    (re.compile(r"(\bbearer\s+)[\w.~+/=-]+", re.IGNORECASE), _HIDDEN),
    # password=x, "api_key": "x", DB_PASSWORD: 'x y', ?access_token=x
    (re.compile(r"([\w.-]*(?:passw(?:or)?d|passwd|pwd|passphrase|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|"
                r"credentials?|session(?:_?id)?|sesskey|csrf\w*)[\"']?\s*(?:=>|[:=])\s*)"
                r"(\"(?:[^\"\\]|\\.)*\"?|'(?:[^'\\]|\\.)*'?|[^\s\"',;&)}\]]+)", re.IGNORECASE), _HIDDEN),
    # A JSON web token, an AWS key, a token of a forge: known by their form.
    (re.compile(r"()\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"), _HIDDEN),
    (re.compile(r"()\b(?:AKIA[0-9A-Z]{16}|gh[pousr]_\w{20,}|glpat-[\w-]{20,}|xox[abprs]-[\w-]{10,})"), _HIDDEN),
)  # fmt: skip
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def redact(text: str, length: int = 200) -> str:
    """*text* as one harmless line of at most *length* characters, its obvious secrets replaced by ``***``.

    ``login failed password=abc`` → ``login failed password=***``
    """
    # Cut generously first: a line may be a megabyte long, and nothing beyond the cut is shown anyway.
    line = text[: length * 10]
    for pattern, replacement in _SECRETS:
        line = pattern.sub(replacement, line)
    line = " ".join(_CONTROL.sub(" ", line).split())
    return line if len(line) <= length else line[: length - 1] + "…"
