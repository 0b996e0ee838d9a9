"""How a compression is written in options, and the commands that come of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.packed.compression import (
    Compression,
    packer,
    parse_compression,
    unpacker,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MissingToolError


def test_none_compresses_nothing() -> None:
    assert parse_compression("none") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("zstd", ("zstd", 1, ".zst")),
        ("zstd:19", ("zstd", 19, ".zst")),
        ("lz4:1", ("lz4", 1, ".lz4")),
        ("gzip:9", ("gzip", 9, ".gz")),
    ],
)
def test_names_and_levels_are_read(text: str, expected: tuple[str, int, str]) -> None:
    found = parse_compression(text)
    assert found is not None
    assert (found.name, found.level, found.suffix) == expected


@pytest.mark.parametrize(
    "text", ["", "zst", "none:1", "zstd:", "zstd:0", "zstd:20", "zstd:-1", "gzip:10", "lz4:3.5", "zstd:٣"]
)
def test_what_no_program_understands_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="compression is"):
        parse_compression(text)


@pytest.mark.parametrize("name", ["lz4", "zstd", "gzip"])
def test_a_missing_program_is_named_with_the_package_that_has_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for ask in (lambda: packer(Compression(name, 1), 2), lambda: unpacker(name)):
        with pytest.raises(MissingToolError) as raised:
            ask()
        assert raised.value.advice == f"apt-get install {name}"
