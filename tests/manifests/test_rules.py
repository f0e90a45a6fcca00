"""The names of rules are known without numpy, so that `--help` is quick."""

import subprocess
import sys

from smoothcert.manifests.rules import RuleName


def test_names_are_plain_text() -> None:
    """In files and tables a name is what a user types."""
    assert [f"{name}" for name in RuleName] == ["exact", "margin", "published"]


def test_names_load_no_numpy() -> None:
    """They are data."""
    code = "import sys, smoothcert.manifests.rules; print(*{'numpy', 'torch'} & sys.modules.keys())"
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert result.stdout.strip() == ""
