"""How one check is switched off in a copy of the checkout."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
UTILS = "plugins/module_utils"


class Switch(NamedTuple):
    """A check: in *file*, the function *what* returns *becomes* at once, or the condition *what* is *becomes*.

    *tests* are the fewest that must fail then, by their paths below ``tests/``.
    """

    name: str
    file: str
    what: str
    becomes: str
    tests: tuple[str, ...]

    def path(self, checkout: Path = ROOT) -> Path:
        return checkout / UTILS / self.file

    def applied(self, source: str) -> str:
        """*source* without the check; raises ValueError when the check is not where it is said to be."""
        if self.what.isidentifier():
            return _returning_at_once(source, self.what, self.becomes)
        if source.count(self.what) != 1:
            raise ValueError(f"{self.name}: {self.what!r} stands {source.count(self.what)} times in {self.file}")
        changed = source.replace(self.what, self.becomes)
        ast.parse(changed)
        return changed

    @contextmanager
    def off(self, checkout: Path) -> Iterator[None]:
        """The check is switched off in *checkout* while the block runs."""
        path = self.path(checkout)
        original = path.read_text()
        path.write_text(self.applied(original))
        try:
            yield
        finally:
            path.write_text(original)


def _returning_at_once(source: str, function: str, value: str) -> str:
    found = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef) and n.name == function]
    if len(found) != 1:
        raise ValueError(f"there are {len(found)} functions {function}")
    first = found[0].body[0]
    lines = source.splitlines(keepends=True)
    lines.insert(first.lineno - 1, f"{' ' * first.col_offset}return {value}\n")
    return "".join(lines)
