"""Tables stand between marks in their pages."""

import pytest

from scripts.docs.pages import table_in, with_table
from tests.scripts.docs.small_table import small_table


@pytest.mark.parametrize("page", ["no marks", "<!-- table: one -->\n<!-- end -->\n" * 2])
def test_a_page_has_the_marks_once(page: str) -> None:
    """Else the error names page and mark."""
    with pytest.raises(ValueError, match=r"page\.md: expected the mark <!-- table: one --> once"):
        with_table(page, small_table(), "")
    assert table_in("<!-- table: one -->\nx\n<!-- end -->", small_table()) == "x\n"
