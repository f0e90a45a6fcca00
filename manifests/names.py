"""Names that somebody else chose, such as those of files and tensors, as part of a line that is printed."""

from collections.abc import Iterable

_LONGEST = 80


def printable(name: object) -> str:
    """A name as a terminal can show it, and not too long; of what is no name, its type."""
    text = str(name) if isinstance(name, str | int | float | bool | None) else f"a {type(name).__name__}"
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def listed(names: Iterable[object], most: int = 5) -> str:
    """The first names, and how many more there are."""
    texts = [printable(name) for name in names]
    more = f" and {len(texts) - most:,} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more
