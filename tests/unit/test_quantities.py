"""Durations and sizes are read as people write them, and nothing else is taken for one."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.quantities import (
    human_bytes,
    human_seconds,
    parse_duration,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("1h30m", 5400), ("7d", 604800), ("2w", 1209600), (5, 5), ("0.5h", 1800), ("12", 12)],
)
def test_durations(text: Any, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "5x", "-3d", "d", "1h 5", "1h-30m", -1, "1e3s"])
def test_what_is_no_duration_is_refused_with_its_text(text: Any) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "count"), [("10MiB", 10485760), ("500kB", 500000), ("1G", 1073741824), (7, 7), ("1.5K", 1536)]
)
def test_sizes(text: Any, count: int) -> None:
    assert parse_size(text) == count


@pytest.mark.parametrize("text", ["", "ten", "5 parsecs", "-1", "10mib"])
def test_what_is_no_size_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(ValueError, match="size"):
        parse_size(text)


def test_people_read_short_numbers() -> None:
    assert [human_bytes(n) for n in (12, 1536, 5 * 1024**3)] == ["12 B", "1.5 KiB", "5.0 GiB"]
    assert [human_seconds(n) for n in (0.21, 4.05, 75, 93600)] == ["210 ms", "4.0 s", "1 min 15 s", "1 d 2 h"]
