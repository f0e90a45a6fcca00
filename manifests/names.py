"""Text that somebody else chose, such as names of files and of tensors or errors of libraries, in printed lines."""

from collections.abc import Iterable

_MAX_CHARACTERS = 80


def printable(name: object) -> str:
    """A name as a terminal can show it, cut if it is long; the type of an object that is no name."""
    text = str(name) if isinstance(name, str | int | float | bool | None) else f"a {type(name).__name__}"
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= _MAX_CHARACTERS else f"{text[:_MAX_CHARACTERS]}..."


def listed(names: Iterable[object], most: int = 5) -> str:
    """The first names, and how many more there are."""
    texts = [printable(name) for name in names]
    more = f" and {len(texts) - most:,} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def one_line(said: object, most: int | None = None) -> str:
    """A text on one line, such as that of an error; the name of its type if it has none.

    Args:
        said: an exception, or a text.
        most: characters to keep; None keeps all.
    """
    return (" ".join(str(said).split()) or type(said).__name__)[:most]
