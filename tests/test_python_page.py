"""docs/python.md: its blocks run, in order and in one namespace, and print what the page shows below them."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import smoothcert
from smoothcert.pipeline.demo import pack_demo_images
from smoothcert.workers.networks.described_jobs import load_job
from tests.helpers.finished_runs import finish_job
from tests.helpers.house import HOUSE
from tests.helpers.python_page import PAGE, READS, Block, python_blocks, run_blocks


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the demo has run, with its job file where the repository has it."""
    folder = tmp_path_factory.mktemp("house")
    shutil.copytree(HOUSE / "manifests" / "examples", folder / "manifests" / "examples")
    pack_demo_images(folder / "data" / "demo")
    finish_job(load_job(folder / "manifests" / "examples" / "demo.yaml"))
    return folder


def run_page(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the blocks in a process of their own; a warning is an error."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.helpers.python_page", *options],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": f"{HOUSE / 'src'}:{HOUSE}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


def test_every_block_runs_and_prints_what_is_shown(house: Path) -> None:
    """From the first to the last."""
    done = run_page(house)
    assert done.returncode == 0, done.stderr


def test_the_base_install_is_enough_to_read(house: Path) -> None:
    """All blocks before the first that needs a model; pandas and Polars are a reader's own."""
    done = run_page(house, "--base")
    assert done.returncode == 0, done.stderr


def test_the_page_shows_what_is_printed() -> None:
    """Only the block that certifies a job prints what differs: folders."""
    blocks = python_blocks(PAGE.read_text())
    assert [block.code for block in blocks if block.printed is None and "print" in block.code] == []
    assert len([block for block in blocks if block.printed]) > 10
    assert 0 < len(python_blocks(READS)) < len(blocks)


def test_other_output_than_the_page_shows_is_found() -> None:
    """What the tests before rely on; a block without output may print anything, and names last."""
    run_blocks([Block("a = 1", None), Block("print(a)", "1\n"), Block("print(a)", None)])
    with pytest.raises(AssertionError, match=r"print\(2\)"):
        run_blocks([Block("print(2)", "1\n")])
    with pytest.raises(AssertionError, match="prints"):
        run_blocks([Block("a = 1", "1\n")])


def test_every_public_name_is_on_the_page() -> None:
    """But those that another page has: compare.md, and what these return."""
    text = PAGE.read_text()
    missing = {name for name in smoothcert.__all__ if not re.search(rf"smoothcert\.{name}\b", text)}
    assert missing == {"Job", "Run", "__version__", "evaluate", "load_gates"}
