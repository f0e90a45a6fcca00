"""A name that somebody else chose becomes part of one printable line."""

from hypothesis import given
from hypothesis import strategies as st

from smoothcert.manifests.names import listed, one_line, printable


@given(st.lists(st.text(max_size=200) | st.integers() | st.none() | st.binary()), st.integers(1, 10))
def test_any_names_become_one_short_printable_line(names, most):
    """Names that are left out are counted."""
    line = listed(names, most)
    assert line.isprintable()
    assert len(line) <= most * 90 + 30
    assert line.endswith(f" and {len(names) - most:,} more") == (len(names) > most)


def test_usual_names_stay_as_they_are():
    """Only unusual names get quotes, escapes or dots. Other values are shown as their type."""
    assert listed(["a.tar", "b c", "\u00e9"]) == "a.tar, b c, \u00e9"
    assert printable("\x1b[2J") == r"'\x1b[2J'"
    assert printable("a" * 80) == "a" * 80
    assert printable("a" * 81 + "/b.tar") == "a" * 40 + "..." + "a" * 34 + "/b.tar"
    assert printable(b"x") == "a bytes"


def test_an_error_of_several_lines_is_one_line():
    """Its text without line breaks and runs of blanks, cut where asked; an error without text is called by its type."""
    assert one_line(ValueError("a\n  b\tc")) == "a b c"
    assert one_line(ValueError("abcdef"), 3) == "abc"
    assert one_line(KeyError()) == "KeyError"
