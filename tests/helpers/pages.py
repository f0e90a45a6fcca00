"""The pages of the documentation, and the commands that they show."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.helpers.house import HOUSE

EXAMPLES = HOUSE / "manifests" / "examples"
README = HOUSE / "README.md"
PAGES = [
    README,
    HOUSE / "CONTRIBUTING.md",
    HOUSE / "CHANGELOG.md",
    *sorted((HOUSE / "docs").rglob("*.md")),
    *sorted(EXAMPLES.glob("*.md")),
]
_FENCED = re.compile(r"^```\w*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_INDENTED = re.compile(r"(?:^ {4}.*\S.*\n)+", re.MULTILINE)
_INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_ASSIGNMENT = re.compile(r"^(\w+)=(?:\"([^\"]*)\"|(\S+))$", re.MULTILINE)


class Command(NamedTuple):
    """A `smoothcert` command: its arguments, and whether a reader could type it (else the text only mentions it)."""

    arguments: list[str]
    is_whole: bool


def sections(page: Path) -> list[str]:
    """The page, cut before each second-level heading."""
    return re.split(r"^(?=## )", page.read_text(), flags=re.MULTILINE)


def blocks(page: Path) -> list[str]:
    """Blocks of code, fenced or indented."""
    return [*_FENCED.findall(page.read_text()), *_INDENTED.findall(_FENCED.sub("", page.read_text()))]


def commands(page: Path) -> Iterator[Command]:
    """All `smoothcert` commands of a page; variables that its blocks assign are filled in."""
    text = page.read_text()
    assigned = {name: quoted or plain for name, quoted, plain in _ASSIGNMENT.findall(text)}
    for block in blocks(page):
        for line in block.replace("\\\n", " ").splitlines():
            yield from (Command(words, is_whole=True) for words in _commands_in(_filled_in(line, assigned)))
    for code in _INLINE.findall(_FENCED.sub("", text)):
        code = _filled_in(" ".join(code.split()), assigned)
        if code.startswith("smoothcert "):
            yield from (Command(words, is_whole=False) for words in _commands_in(code))


def shown_output(page: Path) -> dict[str, str]:
    """Commands after a `$` in blocks of code, and what the block says that they print."""
    shown = {}
    for block in _FENCED.findall(page.read_text()):
        if block.startswith("$ "):
            command, _, output = block[2:].partition("\n")
            shown[command] = output
    return shown


def _filled_in(line: str, assigned: dict[str, str]) -> str:
    for _ in range(2):  # a value may name another variable
        line = re.sub(r"\$(\w+)", lambda found: assigned.get(found[1], found[1]), line)
    return line


def _commands_in(line: str) -> Iterator[list[str]]:
    """The arguments of each `smoothcert COMMAND` in the line."""
    lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars=";|&")
    lexer.whitespace_split, lexer.commenters = True, "#"
    words: list[str] = []
    try:
        tokens = [*lexer]
    except ValueError:  # prose with an apostrophe
        return
    for token in [*tokens, ";"]:
        if not re.fullmatch(r"[;|&]+", token):
            words.append(token)
            continue
        words = words[words.index("do") + 1 :] if "do" in words else words
        if words[:1] == ["smoothcert"] and words[1:] != ["--help"]:
            yield words[1:]
        words = []
