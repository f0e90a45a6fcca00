"""A table for the tests of this folder."""

from scripts.docs.tables import Row, Table


def small_table(*rows: Row, **changes: object) -> Table:
    """Of page.md, with patches of 1 and 2 pixels; `changes` replace its attributes."""
    columns = ("name", "on ablations", "smoothed")
    return Table("one", "page.md", columns, (1, 2), rows)._replace(**changes)
