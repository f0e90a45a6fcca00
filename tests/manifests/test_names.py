"""A name that somebody else chose becomes part of one printable line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smoothcert.manifests.names import listed, one_line, printable, without_secrets


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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://h/a.tar?sig=KEY: is gone", "https://h/a.tar?...: is gone"),
        ("(https://h/a.tar?sig=K,E;Y&b=c'd); x", "(https://h/a.tar?...); x"),
        ("HTTP://me:KEY@h:80/a and https://KEY@h", "HTTP://h:80/a and https://h"),
        ("https://h/a?KEY https://h/b?KEY", "https://h/a?... https://h/b?..."),
        (kept := "hf://datasets/o/n@main/a.tar, s3://b/what?.tar, /a@b?c", kept),
        ("https://h/a@b/c.tar is whole", "https://h/a@b/c.tar is whole"),
    ],
)
def test_urls_are_shown_without_keys(text: str, shown: str) -> None:
    """Neither user nor query of a web server's URL; other text stays."""
    assert without_secrets(text) == shown
    assert "KEY" not in printable(f"https://h/{'long/' * 30}?sig={'KEY' * 30}")
