"""What is in a page."""

from html.parser import HTMLParser


class Tags(HTMLParser):
    """The elements of a page with their attributes, and the text between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


class _Rows(HTMLParser):
    """The cells of the tables of a page, and its other lines."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.lines: list[str] = []
        self._open = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open = tag
        match tag:
            case "tr":
                self.rows.append([])
            case "th" | "td":
                self.rows[-1].append("")
            case "div":
                self.lines.append("")

    def handle_data(self, data: str) -> None:
        if self._open == "div":
            self.lines[-1] += data
        else:
            self.rows[-1][-1] += data


def rows_and_lines(page: str) -> tuple[list[list[str]], list[str]]:
    """The cells of the tables of a page by row, and the text outside of them by line."""
    found = _Rows(page)
    return found.rows, found.lines
