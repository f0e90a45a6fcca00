"""The rooms of the house: who imports whom, where the tests of a file lie, what a wheel holds, what loads torch."""

import ast
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.house import HOUSE

_FOLDERS = ("manifests", "workers", "pipeline")
_LINT_IMPORTS = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"

# Modules without a test file of their own, each with the reason.
_UNTESTED = {
    "manifests/files.py": "records and an interface; nothing in it runs",
    "pipeline/certify_all.py": "a script of one call; tests/test_ray_cluster.py and test_driver.py run it",
    **dict.fromkeys(
        (f"pipeline/commands/{name}.py" for name in ("ask", "certify", "keep", "prepare", "study")),
        "arguments alone; tests/pipeline/test_cli.py lists them, tests of other rooms call the commands",
    ),
    "pipeline/fleet/events.py": "records; nothing in it runs",
    "workers/certificates/family.py": "an interface; tests of families.py run each family",
    "manifests/version.py": "a number; tests/pipeline/test_cli.py compares it with the package's",
    "pipeline/compare/reasons.py": "names; nothing in it runs",
    "pipeline/pack/records.py": "records; nothing in it runs",
}
# Tests without a module of their name, each with the reason.
_CROSS_CUTTING = {
    "workers/certificates/test_detection.py": "one of the two certificates of double_masking.py",
    "workers/votes/test_on_gpu.py": "both engines on a GPU, against the CPU",
    "workers/tars/test_decoding_on_gpu.py": "card_decoder.py on a GPU, against Pillow",
    "workers/votes/test_masked_votes.py": "both engines under masks, against a plain loop",
    "pipeline/fleet/test_attempts_machine.py": "the random histories of attempts.py, a state machine",
    "pipeline/attack/test_standing.py": "the whole system: certified images stand, unsound rules are found out",
    "pipeline/certify/test_faults.py": "a whole driver under faults",
    "pipeline/certify/test_nodes.py": "a cluster of several machines under faults",
    "pipeline/certify/test_packed_images.py": "from photos to a run that is checked and asked",
    "pipeline/certify/test_s3_runs.py": "a whole run whose files lie in S3",
    "pipeline/certify/test_web_runs.py": "a whole run whose tars lie on a web server",
    "pipeline/pages/test_browser.py": "the pages of report and compare in a real browser",
    "pipeline/sql/test_queries.py": "the questions of docs/queries.md, in other tools too",
    "pipeline/certify/test_soak.py": "a whole run under random faults for a quarter of an hour",
    "workers/test_same_votes.py": "votes of all engines against a list in the repository",
    "pipeline/certify/test_suite_faults.py": "faults of suites, as in test_faults.py",
    "pipeline/nightly/test_five_nights.py": "nights of a suite, one after another",
}


def _modules() -> set[str]:
    """Files with code, such as `workers/tars/labels.py`."""
    files = (file for folder in _FOLDERS for file in (HOUSE / folder).rglob("*.py"))
    return {file.relative_to(HOUSE).as_posix() for file in files if file.name != "__init__.py"}


def _rooms() -> list[Path]:
    """Every folder with code, the three top folders included."""
    return sorted({(HOUSE / module).parent for module in _modules()})


def _test_of(module: str) -> str:
    folder, _, name = module.rpartition("/")
    return f"{folder}/test_{name}"


def _tests() -> set[str]:
    """Files with tests of the three folders, such as `workers/tars/test_labels.py`."""
    files = (file for folder in _FOLDERS for file in (HOUSE / "tests" / folder).rglob("test_*.py"))
    return {file.relative_to(HOUSE / "tests").as_posix() for file in files}


def test_every_module_has_its_tests_in_a_file_of_its_name() -> None:
    """The tests of workers/tars/labels.py are tests/workers/tars/test_labels.py."""
    untested = {module for module in _modules() if _test_of(module) not in _tests()}
    assert untested == _UNTESTED.keys(), "write tests for a new module; one that has tests needs no reason here"


def test_every_file_of_tests_has_its_module() -> None:
    """Tests move with their module. The few without one are listed with the reason."""
    stray = _tests() - {_test_of(module) for module in _modules()}
    assert stray == _CROSS_CUTTING.keys()


@pytest.mark.parametrize("room", _rooms(), ids=lambda room: room.relative_to(HOUSE).as_posix())
def test_every_room_says_what_belongs_there(room: Path) -> None:
    """The docstring of its `__init__`; there is no code beside it."""
    body = ast.parse((room / "__init__.py").read_text()).body
    documented = len(body) == 1 and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)
    assert documented, "write what belongs in this room and what does not"


def _imported(file: Path) -> Iterator[str]:
    """The dotted names that a file imports, lazily too."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def test_every_import_of_ours_begins_with_smoothcert() -> None:
    """`import workers` would find another copy of each module, or another package of this name."""
    files = [file for top in (*_FOLDERS, "benchmarks", "scripts", "tests") for file in (HOUSE / top).rglob("*.py")]
    assert len(files) > 100
    for file in files:
        firsts = {name.partition(".")[0] for name in _imported(file)}
        assert not firsts & {*_FOLDERS, ""}, f"{file}: write smoothcert.MODULE"


def test_imports_go_one_way() -> None:
    """The contracts of [tool.importlinter] in pyproject.toml hold."""
    result = subprocess.run(
        [sys.executable, "-c", _LINT_IMPORTS], cwd=HOUSE, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 broken" in result.stdout


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("manifests/names.py", "import smoothcert.workers.storage.disk", "the folders"),
        ("manifests/names.py", "import numpy", "manifests are pure data"),
        ("workers/storage/disk.py", "def lazily():\n    import ray", "only pipeline knows ray"),
        ("workers/tars/labels.py", "import smoothcert.workers.votes.voters", "rooms of workers"),
        ("pipeline/console/looks.py", "import smoothcert.pipeline.demo", "rooms of pipeline"),
    ],
)
def test_an_import_the_wrong_way_is_found(module: str, line: str, contract: str, checkout: Path) -> None:
    """What the test before relies on; imports inside functions count."""
    before = (checkout / module).read_text()
    try:
        (checkout / module).write_text(f"{before}\n{line}\n")
        result = subprocess.run(
            [sys.executable, "-c", _LINT_IMPORTS],
            cwd=checkout,
            env={"PYTHONPATH": str(checkout / "src")},
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        (checkout / module).write_text(before)
    assert result.returncode == 1, result.stdout + result.stderr
    assert f"{contract} BROKEN" in result.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of all that a wheel is made of, links included."""
    copy = tmp_path_factory.mktemp("checkout")
    for folder in (*_FOLDERS, "src"):
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(HOUSE / folder, copy / folder, symlinks=True, ignore=ignored)
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(HOUSE / file, copy)
    return copy


def test_a_wheel_holds_every_module_and_example(checkout: Path, tmp_path: Path) -> None:
    """Under smoothcert alone, so that no other package of our folders' names stands in the way."""
    command = "pip wheel --quiet --no-deps --no-build-isolation --disable-pip-version-check --wheel-dir"
    subprocess.run([sys.executable, "-m", *command.split(), tmp_path, "."], cwd=checkout, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    modules = {*_modules(), *(f"{room.relative_to(HOUSE)}/__init__.py" for room in _rooms())}
    examples = {f"manifests/examples/{file.name}" for file in (HOUSE / "manifests" / "examples").iterdir()}
    data = {name for name in examples if name.endswith((".yaml", ".safetensors", ".py"))}
    assert len(data) > 4
    templates = [file for room in _rooms() for file in room.glob("templates/*")]
    assert len(templates) > 4
    data |= {str(file.relative_to(HOUSE)) for file in templates}
    assert names == {"smoothcert/__init__.py", "smoothcert/__main__.py", "smoothcert/py.typed"} | {
        f"smoothcert/{name}" for name in modules | data
    }


@pytest.mark.parametrize(
    "statement",
    [
        "from smoothcert.pipeline.cli import app; app(['--help'], standalone_mode=False)",
        "import smoothcert.manifests.identity, smoothcert.manifests.shards, smoothcert.manifests.training",
        "import smoothcert.pipeline.certify.driver, smoothcert.pipeline.finetune, smoothcert.pipeline.overview.summary",
        "import smoothcert.pipeline.report.page, smoothcert.pipeline.compare.verdict, smoothcert.pipeline.sql.answers",
    ],
)
def test_commands_and_plans_load_neither_torch_nor_ray(statement: str) -> None:
    """The command line answers, a run is planned, and a finished one is read, without them."""
    heavy = "{'torch', 'ray', 'timm'} & set(sys.modules)"
    script = f"import sys; {statement}; sys.exit(str({heavy}) if {heavy} else 0)"
    result = subprocess.run([sys.executable, "-c", script], cwd=HOUSE, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_help_loads_no_arrays() -> None:
    """It answers at once."""
    heavy = "{'numpy', 'pyarrow', 'scipy', 'duckdb', 'boto3', 'pydantic'} & set(sys.modules)"
    script = f"import sys, smoothcert.pipeline.cli; sys.exit(str({heavy}) if {heavy} else 0)"
    result = subprocess.run([sys.executable, "-c", script], cwd=HOUSE, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_one_machine_works_without_ray() -> None:
    """Importing all that one machine does loads no ray."""
    script = (
        "import sys, smoothcert.workers.certifier, smoothcert.workers.training.loop; sys.exit('ray' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=HOUSE, check=False).returncode == 0
