"""The walls of the house: who imports whom, and what answers without torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.house import HOUSE

FORBIDDEN = {
    "manifests": {"workers", "pipeline", "ray", "torch", "timm", "webdataset"},
    "workers": {"pipeline", "ray"},
    "pipeline": set(),
}


def _package(module: str) -> str:
    """The name of a library, or of our folder."""
    name, _, rest = module.partition(".")
    return rest.partition(".")[0] if name == "smoothcert" else name


def _imports(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {_package(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(_package(node.module))
    return names


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_imports_go_one_way(folder):
    """pipeline -> workers -> manifests, and only pipeline knows ray."""
    files = list((HOUSE / folder).rglob("*.py"))
    assert files
    for file in files:
        assert not _imports(file) & FORBIDDEN[folder], file


@pytest.mark.parametrize(
    "statement",
    [
        "from smoothcert.pipeline.cli import app; app(['--help'], standalone_mode=False)",
        "import smoothcert.manifests.identity, smoothcert.manifests.shards, smoothcert.manifests.training",
        "import smoothcert.pipeline.certify.driver, smoothcert.pipeline.finetune, smoothcert.pipeline.overview.summary",
    ],
)
def test_answers_without_torch(statement):
    """The command line and the planning of a run load neither torch nor ray."""
    heavy = "{'torch', 'ray', 'timm'} & set(sys.modules)"
    script = f"import sys; {statement}; sys.exit(str({heavy}) if {heavy} else 0)"
    result = subprocess.run([sys.executable, "-c", script], cwd=HOUSE, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_workers_run_without_ray():
    """Importing all that one machine does loads no ray."""
    script = (
        "import sys, smoothcert.workers.certifier, smoothcert.workers.training.loop; sys.exit('ray' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=HOUSE, check=False).returncode == 0
