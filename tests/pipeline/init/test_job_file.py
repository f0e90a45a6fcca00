"""The text of a job file is YAML with the same content, whatever the values."""

from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from smoothcert.pipeline.init.job_file import text_of

_TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=20)
_VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), _TEXTS, st.lists(_TEXTS))


_KEYS = st.from_regex(r"[a-z]{1,9}_[a-z]{1,9}", fullmatch=True)  # YAML takes some words for truth values


@given(
    st.dictionaries(_KEYS, _VALUES | st.dictionaries(_KEYS, _VALUES | st.dictionaries(_TEXTS, _VALUES), min_size=1)),
    _TEXTS,
)
def test_it_is_read_as_it_was_written(content: dict[str, Any], comment: str) -> None:
    """Names with colons, quotes or other signs included; comments change nothing."""
    content = {"name": "a: b"} | content
    assert yaml.safe_load(text_of(content, dict.fromkeys(content, f"A sentence. {comment}"), "Head.")) == content


def test_sections_are_blocks_with_comments_above_their_keys() -> None:
    """Short ones, such as the ablation, are one line."""
    content = {"images": {"shards": "a/"}, "ablation": {"kind": "row", "size": 2}}
    comments = {"images.shards": "Two tars.", "ablation": "word " * 30}
    text = text_of(content, comments, "Head.")
    assert text.startswith("# Head.\n\nimages:\n  # Two tars.\n  shards: a/\n# word word")
    assert text.endswith("word\nablation: {kind: row, size: 2}\n")
    assert max(map(len, text.splitlines())) <= 110
