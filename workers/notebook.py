"""Tables as notebooks show them."""

import html
from collections.abc import Iterable, Sequence


def html_table(
    title: str, rows: Iterable[Sequence[str]], columns: Sequence[str] = (), notices: Iterable[str] = ()
) -> str:
    """A table in HTML.

    Args:
        title: a line above it.
        rows: the cells.
        columns: their titles; none: the first cell of each row is its title.
        notices: a line each below it.
    """
    head = f"<thead>{_row(columns, 'th')}</thead>" if columns else ""
    body = "".join(_row(cells, "td") if columns else _row(cells[:1], "th", cells[1:]) for cells in rows)
    below = "".join(_line(f"notice: {notice}") for notice in notices)
    return f"{_line(title)}<table>{head}<tbody>{body}</tbody></table>{below}"


def _line(text: str) -> str:
    return f"<div>{html.escape(text)}</div>"


def _row(cells: Sequence[str], tag: str, values: Sequence[str] = ()) -> str:
    first = "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)
    return f"<tr>{first}{''.join(f'<td>{html.escape(cell)}</td>' for cell in values)}</tr>"
