"""Figures in the documentation are of the checkpoint that comes along, and say so."""

import hashlib
import re
from pathlib import Path

import pytest

from tests.helpers.house import HOUSE

_EXAMPLES = HOUSE / "manifests" / "examples"
_SHIPPED = _EXAMPLES / "cifar10_vit_p4_column4.safetensors"
_PAGES = [HOUSE / "README.md", *sorted((HOUSE / "docs").glob("*.md")), *sorted(_EXAMPLES.glob("*.md"))]
_HASH = re.compile(r"`([0-9a-f]{12}|[0-9a-f]{64})`")  # run ids have 16 digits
_TABLE = re.compile(r"^\|.*\d", re.MULTILINE)


def _sections(page: Path) -> list[str]:
    return re.split(r"^(?=## )", page.read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: page.name)
def test_tables_name_the_shipped_checkpoint(page: Path) -> None:
    """Each section with a table of the shipped checkpoint has the first 12 digits of its hash, and none another's."""
    sha256 = hashlib.sha256(_SHIPPED.read_bytes()).hexdigest()
    for section in _sections(page):
        named = _HASH.findall(section)
        title = section.splitlines()[0] if section else ""
        assert all(sha256.startswith(digits) for digits in named), f"{title}: figures of another checkpoint; make anew"
        if _TABLE.search(section) and re.search("shipped", section, re.IGNORECASE):
            assert named, f"{title}: a table of the shipped checkpoint; name it as `{sha256[:12]}` and make it anew"


def test_the_tables_are_found() -> None:
    """The rule above is asked of the pages that have such tables."""
    named = {page.name for page in _PAGES for section in _sections(page) if _HASH.search(section)}
    assert named == {"certificates.md", "results.md", _SHIPPED.with_suffix(".md").name}
