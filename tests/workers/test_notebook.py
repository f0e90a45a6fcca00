"""Tables of notebooks are HTML that shows any text as it is."""

from smoothcert.workers.notebook import html_table
from tests.helpers.html_tags import Tags, rows_and_lines

HOSTILE = '<script>alert(1)</script> & "cat"'


def test_a_table_has_its_cells_in_order() -> None:
    """With a row of titles, the lines above and below."""
    page = html_table("run", [("1 x 1", "75 %"), ("2 x 2", "50 %")], ("patch", "certified"), ["it is PARTIAL"])
    rows = [["patch", "certified"], ["1 x 1", "75 %"], ["2 x 2", "50 %"]]
    assert rows_and_lines(page) == (rows, ["run", "notice: it is PARTIAL"])
    assert [tag for tag, _ in Tags(page).tags if tag == "th"] == ["th"] * 2


def test_a_table_without_titles_has_one_in_each_row() -> None:
    """Rows may differ in length."""
    page = html_table("run", [("images", "3"), ("certified", "75 %", "50 %")])
    assert rows_and_lines(page) == ([["images", "3"], ["certified", "75 %", "50 %"]], ["run"])
    assert [tag for tag, _ in Tags(page).tags if tag in ("th", "td")] == ["th", "td", "th", "td", "td"]


def test_text_is_never_markup() -> None:
    """Names of jobs and classes come from files."""
    page = html_table(HOSTILE, [(HOSTILE, HOSTILE)], (HOSTILE, HOSTILE), [HOSTILE])
    assert not any(tag == "script" for tag, _ in Tags(page).tags)
    assert rows_and_lines(page) == ([[HOSTILE] * 2] * 2, [HOSTILE, f"notice: {HOSTILE}"])
