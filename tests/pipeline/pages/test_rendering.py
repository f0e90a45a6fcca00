"""Templates escape what they are given."""

from smoothcert.pipeline.pages import rendering
from smoothcert.pipeline.pages.rendering import render, short

ATTACK = "<script>alert(1)</script>"


def test_html_is_escaped() -> None:
    """Through the macros of parts.html.j2, too."""
    page = render("smoothcert.pipeline.compare", "compare.html.j2", EMPTY | {"title": ATTACK, "notices": [ATTACK]})
    assert "<script>alert" not in page
    assert page.count("&lt;script&gt;alert(1)") >= 6
    assert page.count("</script>") == 1


def test_the_style_and_the_script_are_in_the_page() -> None:
    page = render("smoothcert.pipeline.compare", "compare.html.j2", EMPTY)
    assert "prefers-color-scheme: dark" in page
    assert "aria-sort" in page


def test_a_text_of_a_run_is_short_and_printable() -> None:
    assert short("a\x1b[2J") == r"a\x1b[2J"
    assert len(short("x" * 10**6)) == rendering.MAX_CHARACTERS


EMPTY = {
    "title": "one against another",
    "verdict": "nothing was lost",
    "tripped": False,
    "failures": [],
    "accepted": [],
    "measures": {"titles": [("measure", True), (ATTACK, False)], "rows": [[ATTACK, "1"]]},
    "attacks": {"titles": [("patch", False)], "rows": [[ATTACK]]},
    "fallen": [(ATTACK, {"titles": [("key", True)], "rows": [[ATTACK]]})],
    "losses": [],
    "tables": [],
    "classes": [],
    "runs": [],
    "notices": [],
    "sections": [],
}
