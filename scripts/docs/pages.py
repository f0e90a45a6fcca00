"""Tables in Markdown, and the marks between which they stand in a page.

<!-- table: NAME -->
...
<!-- end -->
"""

import re

from scripts.docs.figures import Figures
from scripts.docs.tables import Table

_TABLE = r"(?<=<!-- table: {name} -->\n).*?(?=<!-- end -->)"
_TEXT = {  # flush left
    "trained on",
    "ablation",
    "trained",
    "votes with",
    "network",
    "format",
    "threat",
    "tokens",
    "run",
    "checkpoint",
}


def markdown_of(table: Table, rows: list[Figures]) -> str:
    """The table as it stands in its page; run id and checkpoint stand above it if it has one run, else in each row."""
    columns = head_of(table)
    lines = [columns, ["---" if column in _TEXT else "---:" for column in columns]]
    for figures in rows:
        cells = figures.cells | {"run": f"`{figures.run}`", "checkpoint": f"`{figures.checkpoint}`"}
        lines.append([cells[column] for column in columns])
    caption = ""
    if table.is_of_one_run:
        first = rows[0]
        caption = f"Run `{first.run}`, checkpoint `{first.checkpoint}`, {first.images:,} images:\n\n"
    return caption + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def head_of(table: Table) -> list[str]:
    """The titles of all columns."""
    sources = [] if table.is_of_one_run else ["run", "checkpoint"]
    return [*table.columns, *(f"{side} x {side}" for side in table.sides), *sources]


def table_in(page: str, table: Table) -> str:
    """What stands between the marks.

    Raises:
        ValueError: the page has no such marks, or has them twice.
    """
    found = re.findall(_TABLE.format(name=table.name), page, re.DOTALL)
    if len(found) != 1:
        raise ValueError(f"{table.page}: expected the mark <!-- table: {table.name} --> once, found {len(found)}")
    return str(found[0])


def with_table(page: str, table: Table, markdown: str) -> str:
    """The page with another table between the marks."""
    return page.replace(table_in(page, table), markdown)
