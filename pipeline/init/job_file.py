"""The text of a job file: its keys, each section with what is known about it as a comment.

Not covered: what is known (network.py, images.py).
"""

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

_WIDTH = 110
_SHORT_SECTION = 90  # characters of a section that fits on one line
_ONE_LINE = ("ablation", "execution", "storage")


def text_of(content: Mapping[str, Any], comments: Mapping[str, str], head: str) -> str:
    """Write a job file.

    Args:
        content: the keys in order.
        comments: sentences by key path; each stands above its key.
        head: the first comment.
    """
    return "\n".join([*_comment(head, 0), "", *_lines(content, comments)]) + "\n"


def _lines(content: Mapping[str, Any], comments: Mapping[str, str], prefix: str = "") -> Iterator[str]:
    depth = prefix.count(".")
    for key, value in content.items():
        path = f"{prefix}{key}"
        if path in comments:
            yield from _comment(comments[path], depth)
        if isinstance(value, dict) and depth == 0 and not (key in _ONE_LINE and len(_flow(value)) <= _SHORT_SECTION):
            yield f"{key}:"
            yield from _lines(value, comments, f"{path}.")
        else:
            yield f"{'  ' * depth}{key}: {_flow(value)}"


def _comment(sentences: str, depth: int) -> list[str]:
    indent = f"{'  ' * depth}# "
    return textwrap.wrap(
        sentences,
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _flow(value: Any) -> str:
    """A value on one line of YAML."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**9, allow_unicode=True, sort_keys=False)
    return text.removesuffix("...\n").strip("\n")  # not of other spaces, which are part of a text
