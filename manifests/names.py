"""Makes text that others chose fit to print: file names, tensor names, errors of libraries."""

import re
from collections.abc import Iterable

_USER_OF_URL = re.compile(r"(https?://)[^\s/]*@", re.IGNORECASE)
_QUERY_OF_URL = re.compile(r"(https?://[^\s?]+)\?(?:\.{3}|\S*?)(?=[]};:,.)'\"`]*(?:\s|$))", re.IGNORECASE)
_MAX_CHARACTERS = 80
_END = 40  # characters; the name of a file stays whole at the end of its path


def printable(name: object) -> str:
    """A name as a terminal can show it, cut in the middle if it is long; the type of an object that is no name."""
    text = str(name) if isinstance(name, str | int | float | bool | None) else f"a {type(name).__name__}"
    text = without_secrets(text if text.isprintable() else ascii(text))
    return text if len(text) <= _MAX_CHARACTERS else f"{text[: _MAX_CHARACTERS - _END]}...{text[-_END:]}"


def listed(names: Iterable[object], most: int = 5) -> str:
    """The first names, and how many more there are."""
    texts = [printable(name) for name in names]
    more = f" and {len(texts) - most:,} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def one_line(message: object, most: int | None = None) -> str:
    """The text of an error, or any text, on one line; an error without text gives the name of its type.

    Args:
        message: an exception, or a text.
        most: characters to keep; None keeps all.
    """
    return (" ".join(str(message).split()) or type(message).__name__)[:most]


def without_secrets(text: str) -> str:
    """A text whose https:// and http:// URLs show neither user and password nor the query, which may hold a key."""
    return _QUERY_OF_URL.sub(r"\1?...", _USER_OF_URL.sub(r"\1", text))
