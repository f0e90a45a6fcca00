"""Without torch, Ray and timm: the base reads runs, and the other commands say what to install."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from smoothcert.workers.extras import CERTIFY_MODULES
from tests.helpers.base_install import base_packages
from tests.helpers.house import HOUSE

READS = {
    "query": "RUN --patch 2 --by class",
    "verify": "RUN",
    "runs": "OUTPUT",
    "status": "RUN",
    "repair": "RUN",
    "compare": "RUN RUN --html page.html --markdown page.md --parquet changes.parquet",
    "report": "RUN -o report",
    "sql": "RUN count",
}
MAKES = {
    "certify": "JOB",
    "plan": "JOB",
    "finetune": "TRAINING",
    "demo": "",
    "import-checkpoint": "JOB",
    "verify": "RUN --replay 1",
    "report": "RUN --names imagenet-1k",
}


def base(command: str, arguments: str, run: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    words = {
        "RUN": str(run),
        "OUTPUT": str(run.parent),
        "JOB": str(run.parents[1] / "job.yaml"),
        "TRAINING": str(HOUSE / "manifests" / "examples" / "cifar10-train.yaml"),
        "count": "select count(*) from certified",
    }
    called = [words.get(word, word) for word in arguments.split()]
    return subprocess.run(
        [sys.executable, "-m", "tests.helpers.base_install", command, *called],
        cwd=folder,
        env={"PYTHONPATH": f"{HOUSE / 'src'}:{HOUSE}", "HOME": str(folder), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_the_base_has_no_torch() -> None:
    """Nor Ray, nor timm, at any depth of its dependencies; the sentence about the extra knows all of its modules."""
    assert not base_packages() & {"torch", "torchvision", "timm", "ray", "safetensors", "huggingface-hub", "webdataset"}
    project = tomllib.loads((HOUSE / "pyproject.toml").read_text())["project"]
    extra = {Requirement(text).name for text in project["optional-dependencies"]["certify"]}
    assert extra == CERTIFY_MODULES


@pytest.mark.parametrize("command", READS)
def test_the_base_reads_runs(command: str, finished: Path, tmp_path: Path) -> None:
    """Pictures, plots and pages included."""
    done = base(command, READS[command], finished, tmp_path)
    assert (done.returncode, "error" in done.stderr) == (0, False), done.stderr
    if command == "report":
        assert "data:image/jpeg" in (tmp_path / "report" / "report.html").read_text()


@pytest.mark.parametrize("command", MAKES)
def test_a_command_that_lacks_its_extra_says_how_to_get_it(command: str, finished: Path, tmp_path: Path) -> None:
    """In one line, with exit code 2."""
    done = base(command, MAKES[command], finished, tmp_path)
    assert done.returncode == 2
    assert done.stderr.endswith("which is not installed; run: pip install 'smoothcert[certify]'\n")
    assert "Traceback" not in done.stderr


MAKES_IN_PYTHON = {
    "vote": "smoothcert.vote(None, None, {}, mean=[0.5], std=[0.5])",
    "certify": "smoothcert.certify(smoothcert.load_job(JOB))",
    "load_job": "smoothcert.load_job(JOB, ['model={checkpoint: hf-hub:OWNER/NAME}'])",
    "verify": "smoothcert.verify(RUN, replay=1)",
}


@pytest.mark.parametrize("name", MAKES_IN_PYTHON)
def test_a_function_that_lacks_its_extra_says_how_to_get_it(name: str, finished: Path, tmp_path: Path) -> None:
    """The sentence of the commands, as an error of ours; its name is there, and so are all others."""
    script = f"""
from tests.helpers.base_install import hide_extras
hide_extras()
import smoothcert
assert all(hasattr(smoothcert, name) for name in smoothcert.__all__)
JOB, RUN = {str(finished.parents[1] / "job.yaml")!r}, {str(finished)!r}
try:
    {MAKES_IN_PYTHON[name]}
except smoothcert.RequestError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{HOUSE / 'src'}:{HOUSE}", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert re.search(
        r"this needs \w+, which is not installed; run: pip install 'smoothcert\[certify\]'\n$", done.stdout
    ), done.stderr
