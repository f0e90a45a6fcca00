"""Every command keeps its options and exit codes, answers quickly, and ends with one line if a machine refuses."""

import ast
import importlib
import os
import resource
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup
from typer.testing import CliRunner

import smoothcert
from smoothcert.pipeline.cli import app
from tests.helpers.house import HOUSE

# -B: with a limit on file sizes Python would leave cut bytecode behind, which breaks every later import.
COMMAND = [sys.executable, "-B", "-c", "from smoothcert.pipeline.cli import app; app()"]


def _run(command: Sequence[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=120)


# Arguments, then options, of each command. A name here may be added to, and none may go.
OPTIONS = {
    "accept": "run --json --storage",
    "amplify": "target --allow-code --exact-below --iterations --json --limit --overwrite --picture --seed --set "
    "--storage",
    "attack": "target --allow-code --attack --eps --json --limit --loss --norm --only --patch --places --queries "
    "--random-places --restarts --seed --set --steps --storage",
    "certify": "job --adopt-across --allow-code --json --limit --set --strict-versions --unsafe-overwrite",
    "compare": "base new --allow --format --gate --html --json --markdown --names --overwrite --parquet --patch "
    "--storage --tolerance",
    "demo": "--folder --json",
    "finetune": "training --json --local --set",
    "import-checkpoint": "file --json --key --output",
    "init": "model data --json --output -o --set",
    "nightly": "suite --adopt-across --allow-code --json --limit --notify --set --strict-versions --unsafe-overwrite",
    "pack": "source output --classes --image --in-order --json --label --names --no-labels --seed --shard-bytes "
    "--shard-images --split",
    "plan": "job --allow-code --json --limit --set --tflops",
    "prune": "output --json --keep --storage --yes",
    "query": "run --alarm-below --by --certificate --failing --format --json --limit --of --overwrite --parquet "
    "--patch --patches --rule --sort --storage --stride --tolerance --top",
    "repair": "run --json --storage",
    "report": "run --class --json --names --output -o --patch --sample --seed --storage",
    "runs": "output --json --storage",
    "sensitivity": "target --allow-code --by-token --draws --json --limit --no-by-token --noise --overwrite --picture "
    "--seed --set --share --storage",
    "sql": "runs_and_statement --format --json --overwrite --parquet --storage",
    "status": "run --allow-code --json --storage",
    "verify": "run --allow-code --allow-incomplete --checkpoint --images --json --replay --seed --storage",
}


def _options() -> dict[str, set[str]]:
    """What each command takes, as click knows it."""
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    return {
        name: {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        for name, command in group.commands.items()
    }


def test_every_command_takes_its_arguments_and_options() -> None:
    """Scripts of users rely on these names."""
    assert _options() == {name: set(options.split()) for name, options in OPTIONS.items()}


@pytest.mark.parametrize("command", [[], *([name] for name in OPTIONS)], ids=lambda command: " ".join(command) or "all")
def test_help_shows_every_option(command: list[str]) -> None:
    """In full, on a terminal of 80 columns."""
    result = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "80"})
    assert result.exit_code == 0
    names = OPTIONS[command[0]].split() if command else OPTIONS
    assert all(name in result.stdout for name in names if name.startswith("--") or not command)


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "smoothcert"],
        ["-c", "from smoothcert.pipeline.cli import app; app()"],
        [str(HOUSE / "pipeline" / "certify_all.py")],
    ],
    ids=["python -m smoothcert", "smoothcert", "certify_all.py"],
)
def test_help_answers_from_any_folder(command: list[str], tmp_path: Path) -> None:
    """Also from a folder that holds packages of our folders' names."""
    for name in ("pipeline", "workers", "manifests"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('not ours')")
    done = _run([sys.executable, *command, "--help"], cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage: " in done.stdout


def test_the_installed_command_calls_the_same_function() -> None:
    """`smoothcert` and `python -m smoothcert` are one."""
    scripts = tomllib.loads((HOUSE / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"smoothcert": "smoothcert.pipeline.cli:app"}


def test_help_takes_less_than_a_second_of_computing() -> None:
    """The command line imports nothing heavy. Measured: 0.4 s."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert _run([sys.executable, "-m", "smoothcert", "--help"], cwd=HOUSE).returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1


def test_importing_smoothcert_loads_nothing_heavy() -> None:
    """The public names are imported when they are first used."""
    script = "import sys, smoothcert; print({'torch', 'ray', 'numpy', 'pyarrow', 'pydantic'} & set(sys.modules))"
    assert _run([sys.executable, "-c", script], cwd=HOUSE).stdout == "set()\n"


def test_every_public_name_resolves_to_what_type_checkers_see() -> None:
    """The table of names and the imports under TYPE_CHECKING agree."""
    tree = ast.parse((HOUSE / "src" / "smoothcert" / "__init__.py").read_text())
    (checked,) = [node for node in tree.body if isinstance(node, ast.If)]
    typed = {}
    for line in checked.body:
        assert isinstance(line, ast.ImportFrom) and line.module
        for alias in line.names:
            typed[alias.asname] = getattr(importlib.import_module(line.module), alias.name)
    assert {name: getattr(smoothcert, name) for name in smoothcert.__all__} == typed
    assert set(smoothcert.__all__) <= set(dir(smoothcert))
    with pytest.raises(AttributeError, match="module 'smoothcert' has no attribute 'no_such_name'"):
        smoothcert.no_such_name  # noqa: B018


def test_the_version_is_that_of_the_package() -> None:
    """One number: of the command, of the module, of what is installed."""
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"smoothcert {smoothcert.__version__}\n")
    assert metadata.version("smoothcert") == smoothcert.__version__


def test_h_is_help() -> None:
    """Of the program and of a command."""
    for command in ([], ["query"]):
        short, long = (CliRunner().invoke(app, [*command, option]).stdout for option in ("-h", "--help"))
        assert short == long
        assert "Usage:" in short


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_shell_completes_commands(shell: str) -> None:
    """As the script of `--show-completion` asks."""
    typed = "smoothcert ver"
    asked = {"COMP_WORDS": typed, "COMP_CWORD": "1", "_TYPER_COMPLETE_ARGS": typed}
    done = subprocess.run(
        [Path(sys.executable).with_name("smoothcert")],
        env=os.environ | asked | {"_SMOOTHCERT_COMPLETE": f"complete_{shell}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "verify" in done.stdout
    assert "query" not in done.stdout
