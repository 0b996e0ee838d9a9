# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""When a certificate ends, read from its DER form: the standard library decodes only those that it has validated."""

from __future__ import annotations

import calendar
import typing as t

_CONSTRUCTED_VERSION = 0xA0
_UTC_TIME = 0x17


def expiry_of(certificate: bytes) -> float | None:
    """The time (seconds since 1970) at which the DER *certificate* ends; None when it cannot be read."""
    try:
        _tag, whole = next(_elements(certificate))
        _tag, to_be_signed = next(_elements(whole))
        fields = [content for tag, content in _elements(to_be_signed) if tag != _CONSTRUCTED_VERSION]
        # serial number, signature algorithm, issuer, validity …
        _not_before, (tag, end) = _elements(fields[3])
        return _seconds(tag, end.decode("ascii"))
    except (StopIteration, IndexError, ValueError):
        return None


def _elements(data: bytes) -> t.Iterator[tuple[int, bytes]]:
    """The tags and contents of the DER elements that *data* is a sequence of."""
    position = 0
    while position < len(data):
        tag, length = data[position], data[position + 1]
        position += 2
        if length & 0x80:
            octets = length & 0x7F
            length = int.from_bytes(data[position : position + octets], "big")
            position += octets
        if position + length > len(data):
            raise ValueError("an element beyond the end")
        yield tag, data[position : position + length]
        position += length


def _seconds(tag: int, text: str) -> float:
    """``271121093000Z`` (UTCTime, tag 0x17) or ``20271121093000Z`` (GeneralizedTime)."""
    if tag == _UTC_TIME:
        text = ("19" if text[:2] >= "50" else "20") + text
    numbers = [int(text[:4]), *(int(text[place : place + 2]) for place in range(4, 14, 2))]
    return float(calendar.timegm((*numbers, 0, 0, 0)))
