"""Runs the blocks of docs/python.md in the current folder: python -m tests.helpers.python_page [--base].

With --base only those that need no model, as if nothing but the base, pandas and Polars were installed.
"""

import contextlib
import io
import re
import sys
from typing import Any, NamedTuple

from tests.helpers.base_install import hide_extras
from tests.helpers.house import HOUSE

PAGE = HOUSE / "docs" / "python.md"
READS, _, _ = PAGE.read_text().partition("## Vote with a model in memory")
"""The part of the page that reads runs and votes."""

_BLOCK = re.compile(r"^```python\n(.*?)^```$(?:\n\n^```text\n(.*?)^```$)?", re.DOTALL | re.MULTILINE)


class Block(NamedTuple):
    """A block of code; `printed` is None if the page shows nothing of what it prints."""

    code: str
    printed: str | None


def python_blocks(text: str) -> list[Block]:
    """All blocks, in order."""
    return [Block(found[1], found[2]) for found in _BLOCK.finditer(text)]


def run_blocks(blocks: list[Block]) -> None:
    """Run them in one namespace, and compare what they print."""
    names: dict[str, Any] = {}
    for code, expected in blocks:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, names)
        assert expected in (None, printed.getvalue()), f"{code}prints\n{printed.getvalue()}"


if __name__ == "__main__":
    if "--base" in sys.argv:
        hide_extras(["pandas", "polars"])
        run_blocks(python_blocks(READS))
    else:
        run_blocks(python_blocks(PAGE.read_text()))
